"""How the arrays of a training are split among the devices of a mesh.

`RULES` serves every strategy. With `fsdp` and `tensor` at 1, every device holds all parameters.
`fsdp` above 1 splits them fully (ZeRO stage 3, arXiv 1910.02054); `tensor` above 1 splits heads,
MLPs and classifiers (Megatron-LM, arXiv 1909.08053, section 3); both together do both.
"""

import dataclasses
import math
import re

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vivit_jax.errors import UserError
from vivit_jax.parameter_names import parameter_names

_WHOLE = (None,)

# Which axis of the mesh splits the last axes of a parameter, by the end of the parameter's name;
# the axes before them are not split. Exactly one pattern must match a name.
RULES: dict[str, tuple[str | None, ...]] = {
    # Attention with k heads of e channels.
    r'(query|key|value)/kernel': ('fsdp', 'tensor', None),  # [d k e]
    r'(query|key|value)/bias': ('tensor', None),  # [k e]
    r'out/kernel': ('tensor', None, 'fsdp'),  # [k e d]
    r'out/bias': _WHOLE,  # [d]
    r'relative_position/\w+_table': _WHOLE,  # [k e places] or [1 e places]
    r'queries': ('tensor', 'fsdp'),  # [k d]
    r'time_bias': ('tensor', None),  # [k t]
    # MLP with m hidden channels.
    r'Dense_0/kernel': ('fsdp', 'tensor'),  # [d m]
    r'Dense_0/bias': ('tensor',),  # [m]
    r'Dense_1/kernel': ('tensor', 'fsdp'),  # [m d]
    r'Dense_1/bias': _WHOLE,  # [d]
    # Tubelets, convolutions and projections between channels, [... c d] and [d].
    r'(embedding|\w*conv\d?|dense_in|dense_out|shortcut)/kernel': ('fsdp',),
    r'(embedding|\w*conv\d?|dense_in|dense_out|shortcut)/bias': _WHOLE,
    # Positions and class tokens, [1 n d].
    r'pos_embedding': ('fsdp',),
    r'cls(_\w+)?': _WHOLE,
    # Norms, [d].
    r'\w*(norm|Norm)\w*/(scale|bias|mean|var)': _WHOLE,
    # Classifiers.
    r'output_projection(_\w+)?/kernel': ('fsdp', 'tensor'),  # [d classes]
    r'output_projection(_\w+)?/bias': ('tensor',),  # [classes]
}

# The part of the parameters that need not be split as the rules say, such as a classifier whose
# classes do not divide among the devices.
_MAX_REFUSED = 0.02


def find_rule(name: str) -> tuple[str | None, ...]:
    """The rule for a parameter's name, or for a name that ends in one, as in a moving average.

    Raises:
        ValueError: none of the patterns matches, or more than one.
    """
    found = [pattern for pattern in RULES if re.search(rf'(^|/)({pattern})$', name)]
    if len(found) != 1:
        raise ValueError(
            f'{len(found)} patterns of vivit_jax.parallel.rules.RULES match the parameter {name}, '
            f'instead of one{": " if found else ""}{", ".join(found)}'
        )
    return RULES[found[0]]


@dataclasses.dataclass(frozen=True)
class _Split:
    """How an array is split: its sharding, and why an axis is not split that a rule splits."""

    sharding: NamedSharding
    refusal: str = ''


def _split(name: str, shape: tuple[int, ...], mesh: Mesh) -> _Split:
    if not shape:  # a counter
        return _Split(NamedSharding(mesh, PartitionSpec()))
    rule = find_rule(name)[-len(shape) :]
    spec, refusal = [], ''
    for size, axis in zip(shape[-len(rule) :], rule, strict=True):
        parts = 1 if axis is None else mesh.shape[axis]
        if size % parts:
            refusal = f'{name} {list(shape)}: {axis}={parts} does not divide {size}'
        spec.append(None if parts == 1 or size % parts else axis)
    spec = [None] * (len(shape) - len(rule)) + spec
    return _Split(NamedSharding(mesh, PartitionSpec(*spec)), refusal)


def split_arrays(shapes, mesh: Mesh):
    """The sharding of each array of a tree of parameters.

    Moving averages and running statistics follow the parameter in whose name their own name ends.

    Args:
        shapes: a tree of arrays or of `jax.ShapeDtypeStruct`.
        mesh: the devices.

    Raises:
        UserError: the mesh does not divide axes that rules split, in arrays that hold more than 2 %
            of all bytes.
        ValueError: a name matches no rule, or two.
    """
    splits = jax.tree.map(
        lambda name, x: _split(name, x.shape, mesh), parameter_names(shapes), shapes
    )
    flat = list(zip(jax.tree.leaves(splits), jax.tree.leaves(shapes), strict=True))
    refused = {x.refusal: _bytes(array) for x, array in flat if x.refusal}
    total = sum(_bytes(array) for _, array in flat)
    if sum(refused.values()) > _MAX_REFUSED * total:
        largest = max(refused, key=refused.get)
        raise UserError(
            f'parallel: {sum(refused.values()) / total:.0%} of the parameters cannot be split as '
            f'parallel.fsdp and parallel.tensor ask; the largest is {largest}. Choose numbers that '
            "divide the model's width, its heads and the hidden width of its MLPs"
        )
    return jax.tree.map(lambda x: x.sharding, splits)


def split_optimizer(state, params: dict, shardings: dict, mesh: Mesh):
    """The sharding of each array of an optimizer's state.

    An array is split like the parameter in whose name its own name ends, if both have the same
    shape. Every device holds all others, which are small: counters, or factors of moments.

    Args:
        state: a tree of arrays or of `jax.ShapeDtypeStruct`.
        params: the same, of the parameters.
        shardings: of the parameters.
        mesh: the devices.
    """
    names, trees = jax.tree.leaves(parameter_names(params)), (params, shardings)
    known = dict(zip(names, zip(*map(jax.tree.leaves, trees), strict=True), strict=True))
    whole = NamedSharding(mesh, PartitionSpec())

    def split(name: str, x) -> NamedSharding:
        parts = name.split('/')
        ends = ('/'.join(parts[i:]) for i in range(len(parts)))
        param, sharding = next((known[end] for end in ends if end in known), (None, whole))
        return sharding if param is not None and param.shape == x.shape else whole

    return jax.tree.map(split, parameter_names(state), state)


def _bytes(array) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
