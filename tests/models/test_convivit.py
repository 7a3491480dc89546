"""ConViViT: its own layers and switches."""

import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.costs import count_macs, count_parameters, model_call, plain_form
from vivit_jax.models.convivit.model import CnnBlock
from vivit_jax.models.registry import create_model

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _shapes(model, shape=(2, 4, 16, 16, 3)):
    clip = jax.ShapeDtypeStruct(shape, jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), clip)['params']
    return {name: x.shape for name, x in flax.traverse_util.flatten_dict(params, sep='/').items()}


# All numbers follow from the equations, by a calculation that shares no code with the package.
@pytest.mark.parametrize(
    ('keywords', 'parameters', 'gmac'),
    [
        ({'cnn_blocks': 0}, 114_075_699, 369.31),
        ({'cnn_blocks': 1}, 138_685_581, 473.06),
        ({'cnn_blocks': 2}, 138_738_829, 514.99),
        ({'factorization': 'dot_product'}, 110_318_733, 378.15),
        ({'tubelet_size': (2, 16, 16)}, 163_851_405, 289.10),
        ({'cnn_conv5': 'dense'}, 138_685_581 + 128 * 127 * 125, 2104),
        ({'num_classes': 101}, 138_724_031, None),
        ({'num_classes': 55}, 138_688_657, None),
    ],
    ids=str,
)
def test_costs_equal_specification(keywords, parameters, gmac):
    model = plain_form(create_model('convivit', **keywords))
    call = model_call(model, jax.ShapeDtypeStruct((1, 16, 224, 224, 3), jnp.float32))
    assert count_parameters(call.params) == parameters
    if gmac is not None:
        macs, _ = count_macs(call.function, *call.args)
        assert macs / 1e9 == pytest.approx(gmac, rel=1e-3)


@pytest.mark.parametrize(
    ('factorization', 'vivit'), [('self_attention', 'vivit_fsa'), ('dot_product', 'vivit_fdp')]
)
def test_encoder_has_the_parameters_of_vivit_without_positions(create_tiny, factorization, vivit):
    own, others = (
        {name: shape for name, shape in _shapes(model).items() if name.startswith('Transformer')}
        for model in (
            create_tiny('convivit', factorization=factorization),
            create_tiny(vivit, position='none'),
        )
    )
    assert own == others


@pytest.mark.parametrize(
    ('keywords', 'changed'),
    [
        ({'cnn_conv5': 'dense'}, 'cnnblock_0/conv/kernel'),
        ({'cnn_stride': 2}, 'embedding/kernel'),
        ({'cnn_blocks': 2}, 'cnnblock_1/.*'),
        ({'cnn_blocks': 0}, 'cnnblock_0/.*|embedding/kernel'),
        ({'tubelet_size': (4, 8, 8)}, 'embedding/kernel'),
        ({'factorization': 'dot_product'}, '.*/encoderblock_./.*'),
    ],
    ids=str,
)
def test_switch_changes_its_own_parameters(create_tiny, keywords, changed):
    # The suite of PyTorch twins tests that each switch changes the features.
    plain, other = _shapes(create_tiny('convivit')), _shapes(create_tiny('convivit', **keywords))
    every = plain.keys() | other.keys()
    differing = {name for name in every if plain.get(name) != other.get(name)}
    assert differing == {name for name in every if re.fullmatch(changed, name)}


def test_parts_act_in_their_order(create_tiny, random_clip, random_variables):
    torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')
    model = create_tiny('convivit', num_layers=0)
    clip = random_clip((2, 4, 16, 24, 3))
    variables = random_variables(model, clip)
    params = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), variables['params'])
    functional = torch.nn.functional

    cnn = {key: variables[key]['cnnblock_0'] for key in ('params', 'batch_stats')}
    x = np.moveaxis(np.array(CnnBlock(6).apply(cnn, clip)), -1, 1)
    kernel, bias = params['embedding']['kernel'], params['embedding']['bias']
    x = functional.conv3d(torch.from_numpy(x), kernel.permute(4, 3, 0, 1, 2), bias, (2, 8, 8))
    norm = params['embedding_norm']
    x = functional.layer_norm(x.movedim(1, -1), (16,), norm['scale'], norm['bias'], 1e-6)
    x = x.movedim(-1, 1)
    position = params['embedding_position']['conv']
    kernel = position['kernel'].permute(4, 3, 0, 1, 2)
    x = x + functional.conv3d(x, kernel, position['bias'], padding=1, groups=16)
    norm = params['Transformer']['encoder_norm']
    x = functional.layer_norm(x.movedim(1, -1), (16,), norm['scale'], norm['bias'], 1e-6)
    features = model.apply(variables, clip).features
    np.testing.assert_allclose(features, x.mean((1, 2, 3)), rtol=1e-4, atol=1e-4)


def test_stride_averages_pixels_before_the_cnn(create_tiny, random_clip, random_variables):
    model = create_tiny('convivit', cnn_stride=2, num_layers=1)
    clip = random_clip((2, 4, 32, 16, 3))
    variables = random_variables(model, clip)
    averaged = np.asarray(clip).reshape(2, 4, 16, 2, 8, 2, 3).mean((3, 5))
    halved = create_tiny('convivit', tubelet_size=(2, 4, 4), num_layers=1)
    np.testing.assert_allclose(
        jax.jit(model.apply)(variables, clip).logits,
        jax.jit(halved.apply)(variables, averaged).logits,
        rtol=1e-4,
        atol=1e-4,
    )


def test_convolutions_tell_the_order_of_frames(create_tiny, random_clip, random_variables):
    # Without convolutions along time, the mean over frames would not depend on their order.
    model = create_tiny('convivit', tubelet_size=(1, 8, 8), num_layers=1)
    clip = random_clip((2, 4, 16, 16, 3))
    variables = random_variables(model, clip)
    order, apply = np.array([2, 0, 3, 1]), jax.jit(model.apply)

    def difference(variables):
        before, after = (apply(variables, x).logits for x in (clip, clip[:, order]))
        return np.abs(after - before).max()

    assert difference(variables) > 1e-2
    flat = flax.traverse_util.flatten_dict(variables['params'], sep='/')
    still = {
        name: x * (np.arange(x.shape[0]) == x.shape[0] // 2).reshape(-1, 1, 1, 1, 1)
        if name.endswith('conv/kernel')
        else x
        for name, x in flat.items()
    }
    params = flax.traverse_util.unflatten_dict(still, sep='/')
    assert difference({**variables, 'params': params}) < 1e-4
