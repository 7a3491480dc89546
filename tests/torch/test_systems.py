"""ConViViT, CTN and RPE-STDT in PyTorch: equal to the JAX models, batch statistics included."""

import itertools

import jax
import numpy as np
import pytest

from vivit_jax.models import registry as jax_registry
from vivit_jax.models.variables import abstract_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.torch_export import rules_of
from vivit_jax.weights.torch_layout import to_torch

torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')

from vivit_jax.models.rpe_stdt.torch_temporal import select_frames  # noqa: E402
from vivit_jax.torch import create as registry  # noqa: E402

TOLERANCE = 1e-5
CLIP_SHAPE = (4, 16, 16)
SIZES = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, 'mlp_dim': 24, 'num_classes': 5}
MODELS = {
    'convivit': {'tubelet_size': (1, 4, 4), 'cnn_channels': 6},
    'ctn': {'tubelet_size': (2, 4, 4), 'stem_channels': 4, 'stem_kernel': 3},
    'rpe_stdt': {
        'tubelet_size': (1, 4, 4),
        'temporal_num_layers': 3,
        'temporal_num_heads': 2,
        'temporal_head_dim': 6,
        'subsample_layers': (0, 1),
    },
}
SWITCHES = {
    'convivit': {
        'no_cnn': {'cnn_blocks': 0},
        'two_blocks': {'cnn_blocks': 2},
        'dense': {'cnn_conv5': 'dense'},
        'stride': {'cnn_stride': 2},
        'dot_product': {'factorization': 'dot_product'},
        'patch': {'tubelet_size': (1, 8, 8)},
        'length': {'tubelet_size': (2, 4, 4)},
        'exact': {'gelu': 'exact', 'layer_norm_eps': 0.1},
    },
    'ctn': {
        'tubelet': {'embed': 'tubelet'},
        'kernel_5': {'stem_kernel': 5, 'stem_pool': False, 'stem_bn': False, 'stem_stride': 4},
        'no_pool': {'stem_pool': False},
        'no_stem_bn': {'stem_bn': False},
        'stem_stride': {'stem_stride': 1},
        't_stride': {'stem_t_stride': (2, 1)},
        't_strides': {'stem_t_stride': (2, 2), 'tubelet_size': (4, 4, 4)},
        'learned': {'position': 'learned'},
        'sincos3d': {'position': 'sincos3d'},
        'linear': {'mapping': 'linear'},
        'mapping_5': {'mapping_kernel': 5},
        'no_mapping_bn': {'mapping_bn': False},
        'post': {'norm': 'post'},
    },
    'rpe_stdt': {
        'absolute': {'pos_embed': 'absolute'},
        'frame': {'pos_embed': 'frame'},
        'no_position': {'pos_embed': 'none'},
        'no_terms': {'rpe_terms': 'none'},
        'query': {'rpe_terms': 'query'},
        'key': {'rpe_terms': 'key'},
        'clip': {'rpe_function': 'clip'},
        'euclidean': {'rpe_method': 'euclidean'},
        'unshared': {'shared_heads': False},
        'ratio': {'rpe_ratio': 0.5},
        'temporal_absolute': {'temporal_pos': 'absolute'},
        'temporal_none': {'temporal_pos': 'none'},
        'no_temporal': {'temporal': 'none'},
        'full': {'light': False},
        'max': {'subsample': 'max'},
        'avg': {'subsample': 'avg'},
        'conv': {'subsample': 'conv'},
        'no_subsample': {'subsample': 'none'},
        'one_layer': {'subsample_layers': (1,)},
        'spatial_only': {'size': 'spatial_only'},
        'stdt_l8_full': {'size': 'stdt_l8_full'},
    },
}
CASES = {
    **{name: (name, {}) for name in MODELS},
    'ctn_heads': ('ctn', {'num_classes': {'verb': 3, 'noun': 4}}),
    **{
        f'{name}_{switch}': (name, keywords)
        for name, switches in SWITCHES.items()
        for switch, keywords in switches.items()
    },
}
# Five frames: the last frame is pooled alone.
ODD = {f'rpe_stdt_odd_{kind}': ('rpe_stdt', {'subsample': kind}) for kind in ('topk', 'max', 'avg')}
CASES |= ODD


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Tiny layers take longer when threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(case):
    """The PyTorch model, the JAX model, its random variables, and a clip."""
    name, keywords = CASES[case]
    keywords = {**SIZES, **MODELS[name], **keywords}
    shape = (5, *CLIP_SHAPE[1:]) if case in ODD else CLIP_SHAPE
    ours = jax_registry.create_model(name, **keywords)
    variables = random_variables(ours, shape)
    model = registry.create_model(name, clip_shape=shape, **keywords)
    renamed = to_torch(variables['params'], rules_of(ours.spec), variables['batch_stats'])
    model.load_state_dict({k: torch.tensor(np.ascontiguousarray(x)) for k, x in renamed.items()})
    clip = np.random.default_rng(1).uniform(-1, 1, (2, *shape, 3)).astype(np.float32)
    return model.eval(), ours, variables, clip


def random_variables(model, shape):
    spec = Preprocessing(num_frames=shape[0], crop_size=shape[1], short_side=shape[1])
    shapes, rng = abstract_variables(model, spec.clip_shape), np.random.default_rng(0)
    return {
        'params': jax.tree.map(
            lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), shapes['params']
        ),
        'batch_stats': jax.tree.map(
            lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), shapes['batch_stats']
        ),
    }


def error(value, expected):
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def heads(logits):
    return logits if isinstance(logits, dict) else {'': logits}


@pytest.mark.usefixtures('exact_matmuls', 'quick_compilation')
@pytest.mark.parametrize('case', CASES)
def test_logits_and_features_equal_those_of_jax(case):
    model, ours, variables, clip = make(case)
    expected = jax.jit(ours.apply)(variables, clip)
    with torch.inference_mode():
        output = model(torch.tensor(clip))
    assert error(output.features, expected.features) <= TOLERANCE
    assert heads(output.logits).keys() == heads(expected.logits).keys()
    for head, logits in heads(output.logits).items():
        assert error(logits, heads(expected.logits)[head]) <= TOLERANCE


@pytest.mark.usefixtures('exact_matmuls', 'quick_compilation')
@pytest.mark.parametrize('case', ['convivit_stride', 'ctn', 'rpe_stdt'])
def test_input_gradients_equal_those_of_jax(case):
    model, ours, variables, clip = make(case)
    rng = np.random.default_rng(2)
    cotangents = [rng.normal(size=(2, width)).astype(np.float32) for width in (5, 16)]

    @jax.jit
    def gradient(clip):
        def scalar(clip):
            output = ours.apply(variables, clip)
            return (output.logits * cotangents[0]).sum() + (output.features * cotangents[1]).sum()

        return jax.grad(scalar)(clip)

    expected = gradient(clip)
    clip = torch.tensor(clip, requires_grad=True)
    torch.autograd.backward(tuple(model(clip)), tuple(map(torch.tensor, cotangents)))
    assert error(clip.grad, expected) <= TOLERANCE


@pytest.mark.usefixtures('exact_matmuls', 'quick_compilation')
@pytest.mark.parametrize('case', ['convivit_two_blocks', 'ctn'])
def test_training_updates_the_statistics_as_jax_does(case):
    model, ours, variables, clip = make(case)
    clips = clip, 2 * clip[:1]

    @jax.jit
    def run(variables, clip):
        return ours.apply(variables, clip, train=True, mutable='batch_stats')

    model.train()
    for clip in clips:
        expected, changed = run(variables, clip)
        variables = {**variables, **changed}
        output = model(torch.tensor(clip))
        assert error(output.features.detach(), expected.features) <= TOLERANCE
    assert any(name.endswith('running_var') for name in model.state_dict())
    renamed = to_torch(variables['params'], rules_of(ours.spec), variables['batch_stats'])
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, renamed[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_frames_that_attend_most_selectively_stay():
    frames = np.array([[0.2, 0.2, 0.2], [0.6, 0.0, 0.3], [0.1, 0.0, 0.1], [0.5, 0.3, 0.1]])
    # The rest of the attention goes to the class token, which does not count in the spread.
    rows = np.column_stack([1 - frames.sum(axis=1), frames])
    weights = torch.tensor(np.stack([rows, rows])[None])
    tokens, places = torch.arange(8.0).reshape(1, 4, 2), torch.tensor([[0, 2, 5, 7]])
    found = select_frames(tokens, places, weights)
    # Spreads of frames 1, 2, 3: 0.24, 0.05, 0.16.
    assert found[0].tolist() == [[[0, 1], [2, 3], [6, 7]]] and found[1].tolist() == [[0, 2, 7]]
    equal = torch.full((1, 2, 4, 4), 0.25)
    assert select_frames(tokens, places, equal)[1].tolist() == [[0, 2, 5]]


@pytest.mark.parametrize('name', MODELS)
def test_every_switch_changes_the_result(name):
    # A switch without effect would pass the comparison with JAX.
    def features(keywords):
        model = registry.create_model(
            name, clip_shape=CLIP_SHAPE, **{**SIZES, **MODELS[name], **keywords}
        )
        with torch.no_grad():
            for key, value in sorted(model.named_parameters()):
                # A parameter gets the same numbers in every model in which it has this shape.
                generator = torch.Generator().manual_seed(len(key))
                value.normal_(0, 0.4, generator=generator)
            return model.eval()(torch.rand(2, *CLIP_SHAPE, 3, generator=generator)).features

    results = {switch: features(keywords) for switch, keywords in SWITCHES[name].items()}
    results['plain'] = features({})
    for first, second in itertools.combinations(results, 2):
        is_equal = torch.allclose(results[first], results[second], rtol=1e-4)
        assert is_equal == ({first, second} == {'no_terms', 'no_position'}), (first, second)


@pytest.mark.parametrize(
    ('name', 'keywords', 'message'),
    [
        ('convivit', {'cnn_stride': 2, 'tubelet_size': (1, 4, 5)}, 'must divide the patches'),
        ('convivit', {'factorization': 'dot_product', 'num_heads': 1}, 'must be even'),
        ('convivit', {'cnn_blocks': 3}, 'one of'),
        ('ctn', {'stem_kernel': 4}, 'must be odd'),
        ('ctn', {'tubelet_size': (2, 2, 2)}, 'multiple of'),
        ('ctn', {'size': 'spatial_only'}, 'not of the form'),
        ('rpe_stdt', {'subsample_layers': (3,)}, 'counted from zero'),
        ('rpe_stdt', {'rpe_ratio': 0.1}, 'at least 0.5'),
        ('rpe_stdt', {'subsample': 'top'}, 'one of'),
    ],
)
def test_what_cannot_be_made_is_an_error(name, keywords, message):
    with pytest.raises(ValueError, match=message):
        registry.create_model(name, clip_shape=CLIP_SHAPE, **{**SIZES, **MODELS[name], **keywords})


@pytest.mark.usefixtures('quick_compilation')
@pytest.mark.parametrize('case', ['convivit', 'ctn', 'ctn_no_stem_bn', 'rpe_stdt_conv'])
def test_fresh_variables_are_distributed_as_those_of_jax(case):
    name, keywords = CASES[case]
    sizes = {**SIZES, 'hidden_size': 48, 'mlp_dim': 64, **MODELS[name], **keywords}
    if name == 'ctn':
        sizes['depthwise_init'] = 'lecun' if case == 'ctn' else 'identity'
    ours = jax_registry.create_model(name, **sizes)
    fresh = jax.jit(ours.init)(jax.random.key(0), np.zeros((1, *CLIP_SHAPE, 3), np.float32))
    expected = to_torch(fresh['params'], rules_of(ours.spec), fresh.get('batch_stats', {}))
    torch.manual_seed(0)
    found = registry.create_model(name, clip_shape=CLIP_SHAPE, **sizes).state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        deviation = float(value.std(correction=0))
        assert deviation == pytest.approx(expected[name].std(), rel=0.35), name
        assert float(value.mean()) == pytest.approx(expected[name].mean(), abs=deviation), name


@pytest.mark.parametrize('case', CASES)
def test_every_parameter_gets_a_gradient(case):
    name, keywords = CASES[case]
    keywords = {**SIZES, **MODELS[name], **keywords}
    shape = (5, *CLIP_SHAPE[1:]) if case in ODD else CLIP_SHAPE
    model = registry.create_model(name, clip_shape=shape, **keywords)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    logits = heads(model(torch.rand(2, *shape, 3, generator=generator)).logits)
    sum((x**2).sum() for x in logits.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
