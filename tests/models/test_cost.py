"""Parameters, multiply-adds and bytes, counted from shapes alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tiny_models import known_keywords

from vivit_jax.costs import (
    activation_bytes,
    count_bytes,
    count_costs,
    count_macs,
    count_parameters,
    model_call,
    part_calls,
    plain_form,
    xla_flops,
)
from vivit_jax.layers.convolution import convolution
from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.layers.transformer import EncoderBlock
from vivit_jax.models.published import TOLERANCES, published_models
from vivit_jax.models.registry import create_model, list_models
from vivit_jax.models.variables import abstract_clip
from vivit_jax.models.vivit.model import FactorizedDotProductBlock, FactorizedSelfAttentionBlock

CLIP = jax.ShapeDtypeStruct((1, 4, 16, 16, 3), jnp.float32)
FLOAT = 4  # bytes


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def attend(kernel, x):
    """A function with 36 linear multiply-adds, and 48 others, for a kernel [3 3] and x [4 3]."""
    return (x @ kernel) @ x.T


def test_dense_counts_every_multiply_add_once():
    macs = 2 * 4 * 3 * 5
    assert count_macs(lambda kernel, x: x @ kernel, shape(3, 5), shape(2, 4, 3)) == (macs, macs)


@pytest.mark.parametrize(
    ('kernel', 'groups', 'macs'),
    [
        ((3, 3, 3, 4, 6), 1, 8 * 10 * 10 * 6 * 27 * 4),  # padding counts as well
        ((3, 1, 1, 2, 6), 2, 8 * 10 * 10 * 6 * 3 * 2),
    ],
)
def test_convolution_counts_its_kernel_for_every_output(kernel, groups, macs):
    def convolve(kernel, x):
        return lax.conv_general_dilated(
            x,
            kernel,
            (1, 1, 1),
            'SAME',
            dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
            feature_group_count=groups,
        )

    assert count_macs(convolve, shape(*kernel), shape(1, 8, 10, 10, 4)) == (macs, macs)


def test_product_of_two_inputs_is_not_linear():
    assert count_macs(attend, shape(3, 3), shape(4, 3)) == (36 + 48, 36)


def test_what_follows_from_parameters_and_constants_is_linear():
    def project(kernels, x):
        kernel = jnp.tanh(kernels[0] @ kernels[1]) + jnp.ones(3)
        return x @ kernel

    macs = 3 * 3 * 3 + 4 * 3 * 3
    assert count_macs(project, [shape(3, 3)] * 2, shape(4, 3)) == (macs, macs)


def with_jvp(function):
    wrapped = jax.custom_jvp(function)
    wrapped.defjvp(lambda primals, tangents: (function(*primals), function(*tangents)))
    return wrapped


def with_vjp(function):
    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(lambda *args: (function(*args), args), lambda args, _: args)
    return wrapped


@pytest.mark.parametrize('wrap', [jax.jit, jax.checkpoint, with_jvp, with_vjp])
def test_wrapped_functions_are_entered(wrap):
    assert count_macs(jax.jit(wrap(attend)), shape(3, 3), shape(4, 3)) == (36 + 48, 36)


def test_body_of_a_scan_counts_as_often_as_it_runs():
    def repeat(kernels, x):
        def body(carry, kernel):
            mixed = attend(kernel, x) @ carry  # the carry is a constant in the first turn only
            return mixed, mixed

        return lax.scan(body, jnp.ones((4, 3)), kernels)

    macs = 36 + 48 + 4 * 4 * 3
    assert count_macs(repeat, shape(5, 3, 3), shape(4, 3)) == (5 * macs, 5 * 36)


def test_products_in_a_while_loop_are_refused():
    def loop(kernel, x):
        return lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ kernel, x)

    with pytest.raises(ValueError, match='while'):
        count_macs(loop, shape(3, 3), shape(4, 3))


def test_loop_without_products_counts_nothing():
    def loop(scale, x):
        return lax.while_loop(lambda y: y.sum() < 9, lambda y: y * scale, x)

    assert count_macs(loop, shape(), shape(4, 3)) == (0, 0)


_SPEC = TransformerSpecification(
    hidden_size=8, num_heads=2, mlp_dim=16, attention_implementation='einsum'
)


@pytest.mark.parametrize(
    ('block', 'tokens', 'pairs', 'num_attentions'),
    [
        (EncoderBlock(_SPEC), (2, 5, 8), 2 * 5 * 5, 1),
        (FactorizedSelfAttentionBlock(_SPEC), (1, 3, 5, 8), 3 * 5 * 5 + 5 * 3 * 3, 2),
        (FactorizedDotProductBlock(_SPEC), (1, 3, 5, 8), (3 * 5 * 5 + 5 * 3 * 3) / 2, 1),
    ],
    ids=['plain', 'self_attention', 'dot_product'],
)
def test_encoder_block_follows_its_closed_form(block, tokens, pairs, num_attentions):
    params = jax.eval_shape(block.init, jax.random.key(0), shape(*tokens))
    total, linear = count_macs(lambda p, x: block.apply(p, x)[0], params, shape(*tokens))
    width = tokens[-1]
    assert linear == np.prod(tokens) * (num_attentions * 4 * width + 2 * 16)
    assert total - linear == 2 * pairs * width


def test_xla_counts_two_flops_for_a_multiply_add():
    assert xla_flops(lambda x: x @ x, shape(8, 8)) == 2 * 8**3


def two_layers(params, x):
    return jnp.sin(x @ params['in']) @ params['out']


LAYERS = {'in': shape(3, 5), 'out': shape(5, 2)}


def test_convolution_counts_the_same_whatever_the_device_makes_of_it():
    module = convolution(6, (5, 3, 3), depthwise=True, use_bias=False)
    x = jnp.zeros((2, 4, 6, 8, 6))
    params = module.init(jax.random.key(0), x)
    macs, linear_macs = count_macs(module.apply, params, x)
    assert macs == linear_macs == x.size * 5 * 3 * 3

    def native(params, x):
        kernel, pads = params['params']['kernel'], [(2, 2), (1, 1), (1, 1)]
        names = ('NDHWC', 'DHWIO', 'NDHWC')
        return lax.conv_general_dilated(x, kernel, (1, 1, 1), pads, None, None, names, 6)

    assert xla_flops(module.apply, params, x) == xla_flops(native, params, x) > macs


def test_kept_activations_of_two_layers():
    # Inputs and kernels are arguments. The sine and the cosine [4 5] of the hidden layer are kept.
    assert activation_bytes(two_layers, LAYERS, shape(4, 3)) == 2 * 4 * 5 * FLOAT


def test_array_that_two_operations_keep_counts_once():
    def twice(params, x):
        hidden = jnp.sin(x @ params['in'])
        return hidden @ params['out'] + hidden @ (2 * params['out'])

    doubled = 5 * 2 * FLOAT  # the kernel of the second product is computed
    expected = 2 * 4 * 5 * FLOAT + doubled
    assert activation_bytes(twice, LAYERS, shape(4, 3)) == expected


def test_rematerialised_layers_keep_only_what_lies_between_them():
    def chain(params, x):
        layer = jax.checkpoint(lambda kernel, x: jnp.sin(x @ kernel))
        return layer(params['out'], layer(params['in'], x))

    assert activation_bytes(chain, LAYERS, shape(4, 3)) == 4 * 5 * FLOAT


def test_scalars_are_no_memory():
    assert count_bytes({'step': shape(), 'half': shape(3, dtype=jnp.bfloat16)}) == 6


@pytest.mark.parametrize('name', list_models())
def test_parts_make_up_the_whole(name, create_tiny):
    model = plain_form(create_tiny(name))
    whole, parts = model_call(model, CLIP), part_calls(model, CLIP)
    calls = [call for calls in parts.values() for call in calls]
    assert (
        sum(count_macs(c.function, *c.args)[0] for c in calls)
        == (count_macs(whole.function, *whole.args)[0])
    )
    own = set(whole.params) - set(parts)
    assert all(part.startswith('cls') for part in own)
    assert sum(count_parameters(c.params) for c in calls) == count_parameters(
        {part: params for part, params in whole.params.items() if part not in own}
    )


def test_parts_are_named_in_order_and_heads_are_parts(create_tiny):
    model = create_tiny('vivit_fe', num_classes={'verb': 3, 'noun': 4})
    assert list(part_calls(model, CLIP)) == [
        'embedding',
        'SpatialTransformer',
        'TemporalTransformer',
        'output_projection_verb',
        'output_projection_noun',
    ]


def test_plain_form_unrolls_what_xla_would_count_once(create_tiny):
    keywords = {'num_layers': 3, 'gelu': 'exact', 'position': 'sincos3d'}
    model = create_tiny('vivit_joint', **keywords)
    hidden = create_tiny(
        'vivit_joint',
        **keywords,
        scan_layers=True,
        remat='block',
        dtype='bfloat16',
        attention_implementation='chunked',
    )
    assert plain_form(hidden) == plain_form(model)
    assert count_costs(model_call(plain_form(hidden), CLIP)) == (
        count_costs(model_call(plain_form(model), CLIP))
    )


def test_what_forms_for_other_devices_keep_is_not_counted():
    def forms(x):
        return jax.lax.platform_dependent(
            x, cpu=jnp.sin, default=lambda x: jnp.sin(jnp.outer(x, x)).sum(0)
        )

    expected = activation_bytes(jnp.sin, shape(4))
    assert jax.default_backend() != 'cpu' or activation_bytes(forms, shape(4)) == expected


@pytest.mark.parametrize('name', list_models())
def test_training_form_keeps_less_with_remat_and_in_16_bits(name, create_tiny):
    def kept(dropout_rate=0.1, **keywords):
        rates = {'dropout_rate': dropout_rate, 'drop_path_rate': 0.1, 'num_layers': 1}
        model = create_tiny(name, **known_keywords(name, **rates), **keywords)
        call = model_call(model, CLIP, train=True)
        return activation_bytes(call.function, *call.args)

    assert kept(remat='block') < kept(remat='dots') < kept() < 2 * kept(dtype='bfloat16')
    assert kept(dtype='bfloat16') < kept()
    assert kept(dropout_rate=0.0) < kept()  # no masks
    chunked = {'attention_implementation': 'chunked', 'attention_dropout_rate': 0.1}
    if name == 'rpe_stdt':
        chunked['pos_embed'] = 'absolute'  # there are no relative positions in chunks
    for form in ({'scan_layers': True}, chunked):
        keywords = known_keywords(name, **form)
        assert kept(**keywords) > 0


def test_no_array_is_made():
    model = create_model('vivit_joint', hidden_size=2**18, num_heads=16, mlp_dim=2**20)
    call = model_call(plain_form(model), shape(1, 32, 224, 224, 3))
    assert count_parameters(call.params) > 12 * 12 * 2**36
    assert count_costs(call)['GMAC'] > 1e6


def test_clip_that_does_not_divide_is_an_error(create_tiny):
    with pytest.raises(ValueError, match='frames=3'):
        model_call(create_tiny('vivit_joint'), shape(1, 3, 16, 16, 3))


@pytest.mark.parametrize('reference', published_models(), ids=lambda r: f'{r.label} {r.clip[1]}')
def test_published_models_cost_what_they_should(reference):
    model = plain_form(create_model(**reference.keywords))
    call = model_call(model, abstract_clip(model.spec, reference.clip))
    assert count_parameters(call.params) == reference.parameters
    costs = count_costs(call)
    for convention, value in reference.costs.items():
        assert costs[convention] == pytest.approx(value, rel=TOLERANCES[convention]), convention
    # The other papers do not say how they count.
    if reference.published_cost and reference.label.startswith('ViViT'):
        convention = next(iter(reference.costs))
        assert costs[convention] == pytest.approx(reference.published_cost, rel=1e-3)
