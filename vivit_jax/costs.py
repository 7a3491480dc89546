"""The costs of a model, from the shapes of its program alone: nothing is allocated or compiled.

Functions and their arguments are passed as to `jax.eval_shape`.
"""

import collections
import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var, jaxprs_in_params

from vivit_jax.parallel.mesh import create_mesh, platform_of

Shapes = jax.ShapeDtypeStruct | dict[str, jax.ShapeDtypeStruct]  # of a clip, or of RGB and depth

# The form of a model in which costs are counted. In other forms, XLA's analysis counts a loop's
# body once, chunks add padding, and kernels are opaque.
PLAIN_FORM = {
    'attention_implementation': 'einsum',
    'remat': 'none',
    'scan_layers': False,
    'dtype': 'float32',
}


@dataclasses.dataclass(frozen=True)
class Call:
    """A pure function (params, *inputs) -> outputs, and the shapes of its arguments."""

    function: Callable
    params: dict
    inputs: tuple[jax.ShapeDtypeStruct, ...]

    @property
    def args(self) -> tuple:
        """All arguments of the function."""
        return self.params, *self.inputs


def plain_form(model: nn.Module) -> nn.Module:
    """The same model with einsum attention, unrolled, without rematerialisation, in float32."""
    known = model.spec.defaults()
    form = {keyword: value for keyword, value in PLAIN_FORM.items() if keyword in known}
    return model.clone(spec=dataclasses.replace(model.spec, **form))


def model_call(model: nn.Module, clip: Shapes, train: bool = False) -> Call:
    """The forward pass of a whole model.

    Raises:
        ValueError: the model does not take such a clip.
    """
    variables = jax.eval_shape(lambda clip: model.init(jax.random.key(0), clip), clip)
    return _call(model, variables, (clip,), {'train': train})


def part_calls(model: nn.Module, clip: Shapes, train: bool = False) -> dict[str, list[Call]]:
    """The calls of each top-level submodule of a model, by its name, in order."""
    whole, calls = model_call(model, clip, train), collections.defaultdict(list)

    def catch(method: Callable, args: tuple, keywords: dict, context: nn.module.InterceptorContext):
        module = context.module
        if len(module.path) == 1 and context.method_name == '__call__':
            part = module.clone(parent=None)
            calls[module.name].append(_call(part, module.variables, args, keywords))
        return method(*args, **keywords)

    with nn.intercept_methods(catch):
        jax.eval_shape(whole.function, *whole.args)
    return dict(calls)


def _call(module: nn.Module, variables: Mapping, args: tuple, keywords: dict) -> Call:
    def to_shape(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, jax.Array) else x

    shapes = jax.tree.map(to_shape, dict(variables))
    params = shapes.pop('params', {})
    leaves, structure = jax.tree.flatten(jax.tree.map(to_shape, (args, keywords)))
    is_array = [isinstance(x, jax.ShapeDtypeStruct) for x in leaves]

    def function(params: dict, *inputs: jax.Array):
        arrays = iter(inputs)
        filled = [next(arrays) if is_in else x for x, is_in in zip(leaves, is_array, strict=True)]
        args, keywords = jax.tree.unflatten(structure, filled)
        # The work does not depend on the values of running statistics.
        statistics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        is_training = keywords.get('train', False)
        output, _ = module.apply(
            {'params': params, **statistics},
            *args,
            rngs={'dropout': jax.random.key(0)} if is_training else None,
            mutable=['batch_stats'] if is_training else [],
            **keywords,
        )
        return output

    return Call(function, params, tuple(itertools.compress(leaves, is_array)))


def count_parameters(params: dict) -> int:
    """The number of elements in a tree of arrays or shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def count_bytes(tree) -> int:
    """The bytes of a tree of arrays or shapes, without scalars such as step counts."""
    return sum(_num_bytes(x) for x in jax.tree.leaves(tree) if x.shape)


def count_costs(call: Call) -> dict[str, float]:
    """Costs of a call in units of 1e9, in every convention that papers use.

    Returns:
        `GMAC`: multiply-adds of all matrix products and convolutions, each counted once.
        `GMAC-lin`: multiply-adds of the products in which one operand does not depend on the
        inputs, which leaves out the attention products QKᵀ and AV, as profilers of layers do.
        `XLA/2`: half of XLA's FLOP count, the convention of ViViT's table 2: multiply-adds and half
        of the element-wise operations. `2xGMAC`: two FLOPs for each multiply-add.
    """
    traced = jax.jit(call.function).trace(*call.args)
    macs, linear_macs = _count_traced(traced, call.params)
    flops = _xla_flops(traced)
    return {
        'GMAC': macs / 1e9,
        'GMAC-lin': linear_macs / 1e9,
        'XLA/2': flops / 2e9,
        '2xGMAC': 2 * macs / 1e9,
    }


def count_macs(function: Callable, params, *inputs) -> tuple[int, int]:
    """Multiply-adds of the matrix products and convolutions of `function(params, *inputs)`.

    The padding of a convolution counts, and the body of a scan counts as often as it runs. Fused
    kernels are not counted.

    Returns:
        All multiply-adds, and the multiply-adds of products in which one operand depends only on
        parameters and constants.

    Raises:
        ValueError: there are products within a while loop or another primitive whose number of
            runs is not known.
    """
    return _count_traced(jax.jit(function).trace(params, *inputs), params)


def _count_traced(traced: jax.stages.Traced, params) -> tuple[int, int]:
    jaxpr, num_params = traced.jaxpr.jaxpr, len(jax.tree.leaves(params))
    varies = [index >= num_params for index in range(len(jaxpr.invars))]
    total, linear, _ = _count(jaxpr, varies)
    return total, linear


def _count(jaxpr: Jaxpr, varies: Sequence[bool]) -> tuple[int, int, list[bool]]:
    """All multiply-adds, the linear ones, and which outputs vary if the given inputs vary."""
    varying = set(itertools.compress(jaxpr.invars, varies))

    def flags(variables: Sequence) -> list[bool]:
        return [not isinstance(x, Literal) and x in varying for x in variables]

    total = linear = 0
    for equation in jaxpr.eqns:
        operands = flags(equation.invars)
        results = [any(operands)] * len(equation.outvars)
        bodies = list(jaxprs_in_params(equation.params))
        if bodies:
            macs, linear_macs, results = _count_bodies(equation, bodies, operands)
        else:
            macs = _product_macs(equation)
            linear_macs = 0 if all(operands) else macs
        total += macs
        linear += linear_macs
        varying.update(itertools.compress(equation.outvars, results))
    return total, linear, flags(jaxpr.outvars)


def _count_bodies(
    equation: JaxprEqn, bodies: list[Jaxpr], operands: list[bool]
) -> tuple[int, int, list[bool]]:
    if equation.params.get('branches_platforms'):  # a branch per platform; accelerators: the last
        return _count(bodies[-1], operands[1:])
    if len(bodies) > 1 or len(bodies[0].invars) != len(operands):  # while, cond, kernels
        if any(_count(body, [True] * len(body.invars))[0] for body in bodies):
            raise ValueError(f'cannot tell how often the products in {equation.primitive} are made')
        return 0, 0, [any(operands)] * len(equation.outvars)
    repeats = 1
    if equation.primitive.name == 'scan':
        repeats = equation.params['length']
        # The operands are constants, the carry, and slices; only slices have an axis less inside.
        stop = sum(_same_rank(equation.invars, bodies[0].invars))
        start = stop - sum(_same_rank(equation.outvars, bodies[0].outvars))
        operands[start:stop] = [any(operands)] * (stop - start)  # the carry varies after one turn
    macs, linear_macs, results = _count(bodies[0], operands)
    return repeats * macs, repeats * linear_macs, results


def _same_rank(outside: Sequence, inside: Sequence) -> list[bool]:
    return [a.aval.ndim == b.aval.ndim for a, b in zip(outside, inside, strict=True)]


def _product_macs(equation: JaxprEqn) -> int:
    """Multiply-adds of a matrix product or convolution; 0 for anything else."""
    outputs = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
    if equation.primitive.name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        shape = equation.invars[0].aval.shape
        return outputs * math.prod(shape[axis] for axis in contracted)
    if equation.primitive.name == 'conv_general_dilated':
        kernel = equation.invars[1].aval.shape
        out_channels = kernel[equation.params['dimension_numbers'].rhs_spec[0]]
        return outputs * math.prod(kernel) // out_channels
    return 0


def xla_flops(function: Callable, *args) -> float:
    """FLOPs of `function(*args)` by XLA's analysis of the program before it is optimized.

    The program is lowered for an accelerator, because a program for a CPU may have loops, of which
    XLA would count only one turn.
    """
    return _xla_flops(jax.jit(function).trace(*args))


def _xla_flops(traced: jax.stages.Traced) -> float:
    return traced.lower(lowering_platforms=('tpu',)).cost_analysis()['flops']


def activation_bytes(function: Callable, *args) -> int:
    """Bytes that the forward pass computes and keeps for the gradients of all arguments.

    The arguments themselves, such as parameters, are not counted. This is how much differentiation
    asks for; a compiler keeps less if it computes element-wise operations twice. If a function has
    a form for each kind of device, the form for this process's devices counts.
    """
    jaxpr = jax.make_jaxpr(lambda *args: jax.vjp(function, *args)[1])(*args).jaxpr
    kept = {x for x in jaxpr.outvars if not isinstance(x, Literal)}
    kept.difference_update(jaxpr.invars, jaxpr.constvars, _fillers(jaxpr))
    return count_bytes([x.aval for x in kept])


def _fillers(jaxpr: Jaxpr) -> Iterator[Var]:
    """Arrays that only forms for other devices compute; this process has constants for them."""
    here = platform_of(create_mesh())
    for equation in jaxpr.eqns:
        for index, platforms in enumerate(equation.params.get('branches_platforms') or ()):
            if platforms is None or here in platforms:
                branch = equation.params['branches'][index].jaxpr
                is_computed = _count(branch, [True] * len(branch.invars))[-1]
                yield from itertools.compress(equation.outvars, map(operator.not_, is_computed))
                break


def _num_bytes(array) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
