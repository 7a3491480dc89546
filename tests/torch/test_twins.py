"""Every model in PyTorch equals the JAX model of the same name, and can be trained.

Sizes and cases come from the specifications, so a new model is tested without an edit here.
"""

import functools
import itertools
import re
import zlib

import jax
import numpy as np
import pytest
from tiny_models import find_rates, known_keywords, tiny_keywords

from vivit_jax.heads import by_head
from vivit_jax.models import registry as jax_registry
from vivit_jax.models.registry import MODELS, list_models
from vivit_jax.models.variables import abstract_variables
from vivit_jax.weights.torch_export import rules_of
from vivit_jax.weights.torch_layout import to_torch

torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')

from vivit_jax.torch import create as torch_registry  # noqa: E402

TOLERANCE = 1e-5
CLIP_SHAPE = (6, 16, 12)
# A third temporal block sees which frames stayed; of 6 frames 3 stay, then 2 of this odd number.
OWN_SIZES = {
    'rpe_stdt': {'temporal_num_layers': 3, 'subsample_layers': (0, 1)},
    'mfst': {'tubelet_size': (1, 4, 4)},
}

# Every model is tested as it comes, with other values of keywords that many models have, with every
# other choice of each keyword of its own, with its presets, and with what MORE adds.
CLASSES = {'verb': 3, 'type': 4}
# Choices that are possible only with values of other keywords.
COMPANIONS = {
    'tokenizer=uniform_frames': {'num_sampled_frames': 4, 'tubelet_size': (1, 4, 4)},
    'stem_depth=cdc_st': {'modality': 'depth', 'theta': 0.3},
    'stem_depth=vanilla': {'modality': 'depth', 'theta': 0.8},
    'frame_pool=concat': {'temporal_num_layers': 0, 'pool': 'cls_mean'},
    'frame_pool=change': {'temporal_num_layers': 0},
}
MORE = {
    'vivit_joint': {'quick': {'gelu': 'quick'}},
    'vivit_fe': {
        'frame_average': {'temporal_num_layers': 0},
        'frame_attention': {'temporal_num_layers': 0, 'pool': 'cls_attention'},
        'two_means': {'temporal_num_layers': 2, 'pool': 'mean'},
    },
    'convivit': {
        'patch': {'tubelet_size': (1, 8, 4)},
        'length': {'tubelet_size': (2, 4, 4)},
    },
    'ctn': {
        'kernel_5': {'stem_kernel': 5, 'stem_pool': False, 'stem_bn': False, 'stem_stride': 4},
        'stem_stride': {'stem_stride': 1},
        't_stride': {'stem_t_stride': (2, 1)},
        't_strides': {'stem_t_stride': (3, 2), 'tubelet_size': (6, 4, 4)},
        'mapping_5': {'mapping_kernel': 5},
    },
    'rpe_stdt': {'ratio': {'rpe_ratio': 0.5}, 'one_layer': {'subsample_layers': (1,)}},
    'mfst': {
        'theta': {'theta': 0.0},
        'scales': {'scales': (3, 1, 2)},
        't_stride': {'tubelet_size': (2, 4, 4), 'scales': (1, 3), 'stem_channels': 16},
        'depth': {'modality': 'depth'},
    },
    'f4d': {
        'order': {'attention': ('sta', 'ca', 'ta')},
        'compared': {'attention': ('se', 'cbam'), 'blocks': ('conv1', 'conv2.0')},
        'no_attention': {'attention': ()},
        'kernel': {'block_kernel': (3, 1, 3, 3)},
    },
    'v4d': {
        'no_blocks': {'blocks': ()},
        'kernel': {'block_kernel': (3, 3, 3, 1)},
        'temporal_kernels': {'temporal_kernels': (3, 1, 1, 5), 'stage_blocks': (1, 2, 1, 1)},
    },
}
# Keywords that say how JAX computes, or with which parameters a model starts.
WITHOUT_EFFECT = {'attention_implementation', 'remat', 'scan_layers', 'dtype', 'depthwise_init'}
MODALITIES = {'modality', 'depth_channels', 'fusion'}  # see test_fusion.py
# Many layers that the statistics of few numbers normalize enlarge rounding: their gradients are
# compared in double precision.
DEEP = {'f4d', 'v4d', 'mfst'}
# Cases of the same model: without positions; and of MFST.
EQUAL = (
    {'rpe_terms=none', 'pos_embed=none'},
    {'plain', 'Base'},
    {'num_stages=4', 'Large', 'V-Trans'},
    {'stem_rgb=cdc_t', 'depth'},
    {'knn_spatial=False', 'knn_ratio'},
    {'theta', 'stem_rgb=vanilla', 'stem_depth=vanilla'},
)

# A key's bias moves all scores of a query alike, which the softmax does not see. In the last block
# only the class token asks: CTN does not convolve it, RPE-STDT has it equally far from all. The
# late stages of MFST have a single place.
WITHOUT_GRADIENT = re.compile(
    r'.+key\.bias|'
    r'((spatial_)?encoder\.blocks\.1|temporal_encoder\.blocks\.2)\.attention\.'
    r'(query_local|relative\.key_table).*|'
    r'stages\.[23]\.spatial\..+(query|key)\.weight'
)

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def keywords_of(name, **keywords):
    """Keywords of a small model; the given keywords replace keywords of the same name."""
    return tiny_keywords(name, 4, **{**OWN_SIZES.get(name, {}), **keywords})


def shared_of(name):
    """Values of keywords that many models have, other than the defaults."""
    default = MODELS[name].defaults()
    values = {
        'gelu': 'exact' if default.get('gelu') == 'tanh' else 'tanh',
        'layer_norm_eps': 0.1,
        'num_heads': 4,
        'knn_ratio': 0.7 if default.get('knn_ratio') == 1 else 1.0,
    }
    return known_keywords(name, **values)


def find_cases(name):
    """The keywords of each case of a model."""
    spec = MODELS[name]
    shared = {**shared_of(name), 'num_classes': CLASSES}
    cases = {'plain': {}, 'shared': shared}
    for keyword, default in spec.defaults().items():
        if keyword in shared.keys() | WITHOUT_EFFECT | MODALITIES:
            continue
        choices = (False, True) if isinstance(default, bool) else spec.choices().get(keyword, ())
        for value in choices:
            if value != default:
                case = f'{keyword}={value}'
                cases[case] = {keyword: value, **COMPANIONS.get(case, {})}
    for preset, keywords in spec.PRESETS.items():
        if keywords.keys() - keywords_of(name).keys():
            cases[preset] = {'size': preset}
    return {**cases, **MORE.get(name, {})}


NAMES = list_models()
CASES = {name: find_cases(name) for name in NAMES}
every_model = pytest.mark.parametrize('name', NAMES)
every_case = pytest.mark.parametrize(
    ('name', 'case'), [(name, case) for name in NAMES for case in CASES[name]]
)


def create_torch(name, **keywords):
    return torch_registry.create_model(name, clip_shape=CLIP_SHAPE, **keywords_of(name, **keywords))


def create_jax(name, **keywords):
    return jax_registry.create_model(name, **keywords_of(name, **keywords))


def create_twins(name, **keywords):
    """The models in JAX and in PyTorch, and their variables, which are random and equal."""
    jax_model, model = create_jax(name, **keywords), create_torch(name, **keywords)
    variables = random_variables(jax_model)
    model.load_state_dict(to_state(jax_model, variables))
    return jax_model, model, variables


def random_clip(batch=2, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (batch, *CLIP_SHAPE, 3)).astype(np.float32)


def random_variables(model):
    """Random parameters and running statistics, none of them zero."""
    shapes, rng = abstract_variables(model, CLIP_SHAPE), np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape), shapes['params'])
    batch_stats = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape), shapes['batch_stats'])
    variables = {'params': params, 'batch_stats': batch_stats}
    return jax.tree.map(lambda x: x.astype(np.float32), variables)


def to_state(model, variables):
    """The variables of a JAX model under their names in PyTorch."""
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    renamed = to_torch(params, rules_of(model.spec), batch_stats)
    return {name: torch.tensor(np.ascontiguousarray(x)) for name, x in renamed.items()}


def randomize(model):
    """Fills parameters with the same numbers wherever name and shape are the same."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            parameter.copy_(torch.tensor(rng.normal(0, 0.4, parameter.shape)))
    return model


def weighted_sum(output):
    """A scalar whose gradient meets every logit and every feature."""
    logits = by_head(output.logits)
    values = [output.features, *(logits[head] for head in sorted(logits))]
    weights = [np.random.default_rng(0).normal(size=x.shape).astype(np.float32) for x in values]
    if isinstance(output.features, torch.Tensor):
        weights = [torch.tensor(weight) for weight in weights]
    return sum((x * weight).sum() for x, weight in zip(values, weights, strict=True))


def assert_equal_outputs(output, expected, classes, relative_error):
    logits, expected_logits = by_head(output.logits), by_head(expected.logits)
    assert [(head, x.shape[1]) for head, x in logits.items()] == list(by_head(classes).items())
    for head, value in logits.items():
        assert relative_error(value.detach(), expected_logits[head]) <= TOLERANCE
    assert relative_error(output.features.detach(), expected.features) <= TOLERANCE


@every_case
def test_logits_and_features_equal_those_of_jax(name, case, relative_error):
    rates = dict.fromkeys(find_rates(name), 0.5)  # without effect in evaluation
    jax_model, model, variables = create_twins(name, **CASES[name][case], **rates)
    expected = jax.jit(jax_model.apply)(variables, random_clip())
    with torch.no_grad():
        output = model.eval()(torch.tensor(random_clip()))
    assert_equal_outputs(output, expected, jax_model.spec.num_classes, relative_error)


@every_case
def test_gradient_is_the_derivative_by_every_parameter_and_the_clip(name, case):
    # In double precision, along a random direction in the space of clip and parameters. The step is
    # so short that it crosses no kink of a ReLU or of a maximum.
    model = randomize(create_torch(name, **CASES[name][case])).eval().double()
    point = {**dict(model.named_parameters()), 'clip': torch.tensor(random_clip()).double()}
    point = {key: x.detach().requires_grad_() for key, x in point.items()}

    def scalar(point):
        params = {key: x for key, x in point.items() if key != 'clip'}
        return weighted_sum(torch.func.functional_call(model, params, point['clip']))

    scalar(point).backward()
    for key, x in point.items():
        assert x.grad is not None and x.grad.isfinite().all(), key
        # What is added to every token changes no difference of tokens.
        is_without = case == 'frame_pool=change' and key.endswith('encoder.norm.bias')
        is_without = is_without or WITHOUT_GRADIENT.fullmatch(key)
        assert is_without or x.grad.abs().max() > 1e-6, key
    rng = np.random.default_rng(0)
    step = {key: torch.tensor(rng.normal(0, 1e-8, x.shape)) for key, x in point.items()}
    with torch.no_grad():
        ahead, behind = (
            scalar({key: x + sign * step[key] for key, x in point.items()}) for sign in (1, -1)
        )
        expected = sum((x.grad * step[key]).sum() for key, x in point.items())
    assert float(ahead - behind) / 2 == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ('name', 'case'),
    [*((name, 'plain') for name in NAMES), ('convivit', 'cnn_blocks=2')],
)
def test_training_step_has_gradients_and_statistics_of_jax(name, case, relative_error):
    dtype = 'float64' if name in DEEP else 'float32'
    jax_model, model, variables = create_twins(name, **CASES[name][case], dtype=dtype)
    variables = jax.tree.map(lambda x: x.astype(dtype), variables)
    model.to(getattr(torch, dtype)).train()

    @jax.enable_x64(name in DEEP)
    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def differentiate(params, clip, batch_stats):
        variables = {'params': params, 'batch_stats': batch_stats}
        output, changed = jax_model.apply(variables, clip, train=True, mutable='batch_stats')
        return weighted_sum(output), (output, changed)

    for clip in (random_clip().astype(dtype), 2 * random_clip(seed=2).astype(dtype)):
        (by_params, by_clip), (expected, changed) = differentiate(
            variables['params'], clip, variables['batch_stats']
        )
        variables |= changed
        clip = torch.tensor(clip, requires_grad=True)
        model.zero_grad()
        output = model(clip)
        weighted_sum(output).backward()
        assert_equal_outputs(output, expected, jax_model.spec.num_classes, relative_error)
        assert relative_error(clip.grad, by_clip) <= TOLERANCE
        gradients = to_state(jax_model, {'params': by_params})
        rounding = 1e-7 * max(float(gradient.norm()) for gradient in gradients.values())
        for key, parameter in model.named_parameters():
            error = float((parameter.grad - gradients[key]).norm())
            assert error <= TOLERANCE * float(gradients[key].norm()) + rounding, key
    expected = to_state(jax_model, variables)
    for key, value in model.state_dict().items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-5, err_msg=key)


@every_model
def test_every_case_changes_the_result(name):
    # Otherwise equality with JAX would say nothing about the case.
    def run(keywords):
        model = randomize(create_torch(name, **keywords)).eval()
        with torch.no_grad():
            return model(torch.tensor(random_clip())).features

    cases = {key: case for key, case in CASES[name].items() if case != {'num_classes': CLASSES}}
    cases |= {key: {key: value} for key, value in shared_of(name).items()}
    features = {case: run(keywords) for case, keywords in cases.items()}
    for first, second in itertools.combinations(features, 2):
        pair = features[first], features[second]
        is_equal = pair[0].shape == pair[1].shape and torch.allclose(*pair, rtol=1e-4)
        expected = any({first, second} <= cases for cases in EQUAL)
        assert is_equal == expected, (first, second)


@pytest.mark.parametrize(
    ('name', 'keywords'),
    [
        *((name, {}) for name in NAMES),
        ('ctn', {'stem_bn': False, 'depthwise_init': 'lecun'}),
        ('rpe_stdt', {'subsample': 'conv', 'pos_embed': 'absolute', 'temporal_pos': 'absolute'}),
    ],
    ids=str,
)
def test_fresh_variables_are_distributed_as_those_of_jax(name, keywords):
    sizes = {'hidden_size': 96, 'mlp_dim': 128, 'num_layers': 1}
    keywords = {**known_keywords(name, **sizes), **keywords}
    jax_model, key = create_jax(name, **keywords), jax.random.key(0, impl='rbg')
    expected = to_state(jax_model, jax.jit(jax_model.init)(key, random_clip(batch=1)))
    torch.manual_seed(0)
    found = create_torch(name, **keywords).state_dict()
    assert found.keys() == expected.keys()
    for key, value in found.items():
        deviation = float(value.std(correction=0))
        if 1 < value.numel() < 10:  # too few numbers to tell a distribution
            assert bool(deviation) == bool(expected[key].std(correction=0)), key
            continue
        assert deviation == pytest.approx(float(expected[key].std(correction=0)), rel=0.35), key
        assert float(value.mean()) == pytest.approx(float(expected[key].mean()), abs=deviation), key


@pytest.mark.parametrize(
    ('name', 'rate'), [(name, rate) for name in NAMES for rate in find_rates(name)]
)
def test_dropout_acts_in_training_only(name, rate):
    clip = torch.tensor(random_clip(batch=8))
    layers = known_keywords(name, num_layers=2)  # the first layer drops no path
    plain = randomize(create_torch(name, **layers)).eval()
    model = create_torch(name, **layers, **{rate: 0.5})
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected = plain(clip).features
        assert torch.equal(model.eval()(clip).features, expected)
        torch.manual_seed(0)
        model.train()
        first, second = model(clip).features, model(clip).features
    assert not torch.allclose(first, second, rtol=1e-3)
    assert not torch.allclose(first, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ('name', 'keywords'),
    [
        *((name, {'num_classes': CLASSES}) for name in NAMES),
        ('vivit_fsa', {'position': 'none'}),
        ('vivit_fe', {'tokenizer': 'uniform_frames', **COMPANIONS['tokenizer=uniform_frames']}),
    ],
    ids=str,
)
def test_training_lowers_the_loss(name, keywords):
    torch.manual_seed(0)
    model = create_torch(name, **keywords, **dict.fromkeys(find_rates(name), 0.05)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    clip, labels = torch.tensor(random_clip(batch=3)), torch.arange(3)
    losses = []
    for _ in range(20):
        logits = by_head(model(clip).logits).values()
        loss = sum(torch.nn.functional.cross_entropy(x, labels) for x in logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ('name', 'keywords', 'message'),
    [
        ('vivit_f', {}, 'did you mean'),
        ('vivit_joint', {'num_head': 2}, "did you mean 'num_heads'"),
        ('vivit_joint', {'temporal_num_layers': 2}, 'no keyword'),
        ('vivit_fsa', {'pool': 'cls'}, "one of \\('mean', 'attention'\\)"),
        ('vivit_fdp', {'num_heads': 1}, 'must be even'),
        ('vivit_fe', {'tubelet_size': (4, 4, 4)}, 'multiple of 4'),
        ('convivit', {'cnn_stride': 2, 'tubelet_size': (1, 4, 5)}, 'must divide the patches'),
        ('convivit', {'factorization': 'dot_product', 'num_heads': 1}, 'must be even'),
        ('convivit', {'cnn_blocks': 3}, 'one of'),
        ('ctn', {'stem_kernel': 4}, 'must be odd'),
        ('ctn', {'tubelet_size': (2, 2, 2)}, 'multiple of'),
        ('ctn', {'size': 'spatial_only'}, 'not of the form'),
        ('rpe_stdt', {'subsample_layers': (3,)}, 'counted from zero'),
        ('rpe_stdt', {'rpe_ratio': 0.1}, 'at least 0.5'),
        ('rpe_stdt', {'subsample': 'top'}, 'one of'),
        ('f4d', {'blocks': ('conv2.1',)}, "'conv2.1' is no place"),
        ('v4d', {'size': 'B/16x2'}, 'one of I3D-S, conv1'),
    ],
)
def test_impossible_model_is_an_error(name, keywords, message):
    sizes = keywords_of(name) if name in NAMES else {}
    with pytest.raises(ValueError, match=message):
        torch_registry.create_model(name, clip_shape=CLIP_SHAPE, **{**sizes, **keywords})


@every_model
@pytest.mark.parametrize('shape', [(2, 6, 12, 12, 3), (2, 3, 6, 16, 12), (6, 16, 12, 3)])
def test_clip_of_another_shape_is_an_error(name, shape):
    with pytest.raises(ValueError, match=r'\(6, 16, 12, 3\)') as caught:
        create_torch(name)(torch.zeros(shape))
    assert str(shape) in str(caught.value)


def test_size_fills_the_sizes_and_jax_keywords_have_no_effect():
    model = torch_registry.create_model(
        'vivit_fsa',
        'Ti/4x2',
        clip_shape=(4, 8, 12),
        num_layers=1,
        dtype='bfloat16',
        remat='block',
        scan_layers=True,
        attention_implementation='pallas',
    )
    assert len(model.encoder.blocks) == 1
    assert model.encoder.blocks[0].mlp.fc1.weight.shape == (768, 192)
    assert model.grid == (2, 2, 3)
    assert model.head.weight.dtype == torch.float32
