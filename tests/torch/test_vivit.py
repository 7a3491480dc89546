"""The PyTorch models: they equal the JAX models, can be trained, and need no JAX."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import pytest

from vivit_jax.models import registry as jax_registry
from vivit_jax.models.registry import specify
from vivit_jax.weights.torch_export import rules_of
from vivit_jax.weights.torch_layout import to_torch

torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')

from vivit_jax.layers.torch.tokens import PositionEmbedding  # noqa: E402
from vivit_jax.layers.torch.transformer import DropPath, SelfAttention  # noqa: E402
from vivit_jax.torch import create as registry  # noqa: E402

RULES = rules_of(specify('vivit_joint'))  # equal for the four models

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5
CLIP_SHAPE = (4, 8, 12)
SIZES = {
    'hidden_size': 16,
    'num_layers': 2,
    'num_heads': 2,
    'mlp_dim': 24,
    'tubelet_size': (2, 4, 4),
    'num_classes': 5,
}
MODELS = {
    'vivit_joint': {},
    'vivit_fe': {'temporal_num_layers': 1},
    'vivit_fsa': {},
    'vivit_fdp': {},
}
SWITCHES = {
    'sincos3d': {'position': 'sincos3d'},
    'no_position': {'position': 'none'},
    'exact': {'gelu': 'exact'},
    'epsilon': {'layer_norm_eps': 0.1},
    'four_heads': {'num_heads': 4},
}
FRAMES = {'tokenizer': 'uniform_frames', 'num_sampled_frames': 3, 'tubelet_size': (1, 4, 4)}
VARIANTS = {
    'plain': {},
    'sincos3d': {**SWITCHES['sincos3d'], **SWITCHES['exact'], **SWITCHES['four_heads']},
    'no_position': {
        **SWITCHES['no_position'],
        **SWITCHES['epsilon'],
        'num_classes': {'verb': 3, 'type': 4},
    },
    'uniform_frames': FRAMES,
}
CASES = {
    **{
        f'{name}_{variant}': (name, {**keywords, **VARIANTS[variant]})
        for name, keywords in MODELS.items()
        for variant in VARIANTS
    },
    'vivit_joint_mean': ('vivit_joint', {'pool': 'mean', 'position': 'sincos3d'}),
    'vivit_fe_mean': ('vivit_fe', {'pool': 'mean', 'temporal_num_layers': 2}),
    'vivit_fe_frame_average': ('vivit_fe', {'temporal_num_layers': 0}),
    'vivit_fsa_time_space': ('vivit_fsa', {'attention_order': 'time_space'}),
}
REFERENCES = (
    'joint_cls',
    'joint_mean',
    'joint_uniform_frames',
    'fe_cls',
    'fe_mean',
    'fe_frame_average',
    'fsa_space_time',
    'fdp_mean',
)
RATES = ('dropout_rate', 'attention_dropout_rate', 'drop_path_rate')


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Tiny layers take longer when threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def create(name, clip_shape=CLIP_SHAPE, **keywords):
    return registry.create_model(name, clip_shape=clip_shape, **{**SIZES, **keywords})


def random_clip(shape=CLIP_SHAPE, batch=2):
    return np.random.default_rng(1).uniform(-1, 1, (batch, *shape, 3)).astype(np.float32)


def load(model, params):
    state = {k: torch.tensor(np.ascontiguousarray(x)) for k, x in to_torch(params, RULES).items()}
    model.load_state_dict(state)
    return model.eval()


def randomize(model):
    """Fills a model, whose classifier starts at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model


def error(value, expected):
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def weighted(output, cotangents):
    """A scalar that depends on every logit and every feature."""
    logits = output.logits if isinstance(output.logits, dict) else {'': output.logits}
    values = [output.features, *(logits[head] for head in sorted(logits))]
    return sum((value * x).sum() for value, x in zip(values, cotangents, strict=True))


@pytest.mark.usefixtures('exact_matmuls', 'quick_compilation')
@pytest.mark.parametrize('case', CASES)
def test_logits_features_and_gradients_equal_those_of_jax(case, random_params):
    name, keywords = CASES[case]
    rates = dict.fromkeys(RATES, 0.5)  # without effect in evaluation
    theirs = create(name, **keywords, **rates)
    ours = jax_registry.create_model(name, **{**SIZES, **keywords, **rates})
    clip = random_clip()
    params = random_params(ours, clip)
    rng = np.random.default_rng(2)
    classes = keywords.get('num_classes', 5)
    widths = [
        16,
        *([classes] if isinstance(classes, int) else [classes[k] for k in sorted(classes)]),
    ]
    cotangents = [rng.normal(size=(2, width)).astype(np.float32) for width in widths]

    @jax.jit
    def run(clip):
        def scalar(clip):
            output = ours.apply({'params': params}, clip)
            return weighted(output, cotangents), output

        return jax.grad(scalar, has_aux=True)(clip)

    gradient, expected = run(clip)
    theirs, clip = load(theirs, params), torch.tensor(clip, requires_grad=True)
    output = theirs(clip)
    weighted(output, [torch.tensor(x) for x in cotangents]).backward()
    assert error(output.features.detach(), expected.features) <= TOLERANCE
    assert error(clip.grad, gradient) <= TOLERANCE
    if isinstance(classes, int):
        assert error(output.logits.detach(), expected.logits) <= TOLERANCE
    else:
        assert list(output.logits) == list(classes)
        for head, logits in output.logits.items():
            assert error(logits.detach(), expected.logits[head]) <= TOLERANCE


@pytest.mark.parametrize('name', MODELS)
def test_every_switch_changes_the_result(name):
    # A switch without effect would pass the comparison with JAX.
    clip = torch.tensor(random_clip())
    plain = randomize(create(name, **MODELS[name]))
    expected = plain(clip).features.detach()
    switches = {**SWITCHES}
    if name == 'vivit_fsa':
        switches['time_space'] = {'attention_order': 'time_space'}
    for switch, keywords in switches.items():
        model = create(name, **MODELS[name], **keywords)
        model.load_state_dict(plain.state_dict(), strict=False)  # a table may be without effect
        assert error(model(clip).features.detach(), expected) > 2 * TOLERANCE, switch


@pytest.mark.parametrize('name', REFERENCES)
def test_logits_and_gradients_equal_the_original(name, shared):
    with np.load(shared / f'fixtures/vivit/{name}.npz', allow_pickle=False) as file:
        reference = dict(file)

    def tree(prefix):
        return flax.traverse_util.unflatten_dict(
            {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)},
            sep='/',
        )

    inputs = torch.tensor(reference['inputs'], requires_grad=True)
    keywords = json.loads(str(reference['kwargs']))
    model = registry.create_model(
        str(reference['model']), clip_shape=tuple(inputs.shape[1:4]), **keywords
    )
    load(model, tree('params/'))
    logits = model(inputs).logits
    (logits * torch.tensor(reference['cotangent'])).sum().backward()
    assert error(logits.detach(), reference['logits']) <= TOLERANCE
    assert error(inputs.grad, reference['grad_inputs']) <= TOLERANCE
    shapes = tree('params/')
    norms = jax.tree.map(lambda norm, x: np.full(x.shape, norm), tree('grad_norm/'), shapes)
    expected = {name: x.flat[0] for name, x in to_torch(norms, RULES).items()}
    for name, parameter in model.named_parameters():
        norm = float(parameter.grad.norm())
        if expected[name] < 1e-4:  # rounding: a key's bias has no gradient in theory
            assert norm < 1e-4, name
        else:
            assert abs(norm - expected[name]) <= TOLERANCE * expected[name], name


def test_size_fills_the_sizes_and_jax_keywords_have_no_effect():
    model = registry.create_model(
        'vivit_fsa',
        'Ti/4x2',
        clip_shape=CLIP_SHAPE,
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


@pytest.mark.parametrize(
    ('name', 'keywords', 'message'),
    [
        ('vivit_f', {}, 'did you mean'),
        ('vivit_joint', {'num_head': 2}, "did you mean 'num_heads'"),
        ('vivit_joint', {'temporal_num_layers': 2}, 'no keyword'),
        ('vivit_fsa', {'pool': 'cls'}, "one of \\('mean',\\)"),
        ('vivit_fdp', {'num_heads': 1}, 'must be even'),
        ('vivit_fe', {'tubelet_size': (3, 4, 4)}, 'multiple of 3'),
    ],
)
def test_what_cannot_be_made_is_an_error(name, keywords, message):
    with pytest.raises(ValueError, match=message):
        create(name, **keywords)


@pytest.mark.parametrize('shape', [(2, 4, 8, 8, 3), (2, 3, 4, 8, 12), (4, 8, 12, 3)])
def test_clip_of_another_shape_is_an_error(shape):
    with pytest.raises(ValueError, match=r'\(4, 8, 12, 3\)') as caught:
        create('vivit_joint')(torch.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.usefixtures('quick_compilation')
@pytest.mark.parametrize('name', MODELS)
def test_fresh_parameters_are_distributed_as_those_of_jax(name):
    keywords = {**SIZES, 'hidden_size': 48, 'mlp_dim': 64, **MODELS[name]}
    ours = jax_registry.create_model(name, **keywords)
    params = jax.jit(ours.init)(jax.random.key(0), random_clip(batch=1))['params']
    expected = to_torch(params, RULES)
    torch.manual_seed(0)
    found = create(name, **keywords).state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        deviation = float(value.std(correction=0))
        assert deviation == pytest.approx(expected[name].std(), rel=0.35), name
        assert float(value.mean()) == pytest.approx(expected[name].mean(), abs=deviation), name


@pytest.mark.parametrize(
    'case', ['vivit_joint_plain', 'vivit_fe_uniform_frames', 'vivit_fsa_no_position']
)
def test_training_lowers_the_loss(case):
    name, keywords = CASES[case]
    torch.manual_seed(0)
    model = create(name, **keywords, **dict.fromkeys(RATES, 0.05)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    clip, labels = torch.tensor(random_clip(batch=3)), torch.arange(3)
    losses = []
    for _ in range(20):
        logits = model(clip).logits
        heads = logits.values() if isinstance(logits, dict) else [logits]
        loss = sum(torch.nn.functional.cross_entropy(x, labels) for x in heads)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize('case', CASES)
def test_every_parameter_gets_a_gradient(case):
    name, keywords = CASES[case]
    model = randomize(create(name, **keywords)).train()
    output = model(torch.tensor(random_clip()))
    heads = output.logits.values() if isinstance(output.logits, dict) else [output.logits]
    sum((x**2).sum() for x in heads).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        # A key's bias has no gradient in theory: it shifts all scores of a query equally.
        assert name.endswith('key.bias') or parameter.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('rate', RATES)
def test_dropout_acts_in_training_only(name, rate):
    clip = torch.tensor(random_clip())
    torch.manual_seed(0)
    plain = randomize(create(name, **MODELS[name]))
    model = create(name, **MODELS[name], **{rate: 0.5})
    model.load_state_dict(plain.state_dict())
    expected = plain(clip).features
    assert torch.equal(model.eval()(clip).features, expected)
    model.train()
    first, second = model(clip).features, model(clip).features
    assert not torch.allclose(first, second, rtol=1e-3)
    assert not torch.allclose(first, expected, rtol=1e-3)


def test_drop_path_keeps_whole_examples_and_the_expectation():
    torch.manual_seed(0)
    drop_path, branch = DropPath(0.3).train(), torch.ones(4000, 2, 3)
    dropped = drop_path(branch)
    examples = dropped[:, 0, 0]
    assert torch.equal(dropped, examples[:, None, None].expand_as(dropped))
    torch.testing.assert_close(examples.unique(), torch.tensor([0, 1 / 0.7]))
    assert float(examples.mean()) == pytest.approx(1, abs=0.05)
    assert drop_path.eval()(branch) is branch


def test_drop_path_grows_with_depth_in_each_encoder():
    model = create('vivit_fe', num_layers=4, temporal_num_layers=1, drop_path_rate=0.3)
    rates = [block.drop_path.rate for block in model.spatial_encoder.blocks]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3], rtol=1e-12)
    assert [block.drop_path.rate for block in model.temporal_encoder.blocks] == [0]


def test_attention_along_an_axis_leaves_the_other_alone():
    tokens = torch.randn(1, 3, 4, 16, generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 1, 2] += 1
    for axis, moved in {'space': (slice(1, 2), slice(None)), 'time': (slice(None), 2)}.items():
        attention = SelfAttention(16, 2, (axis,), 0.0)
        difference = (attention(changed) - attention(tokens)).detach().abs().amax(-1)[0]
        expected = torch.zeros(3, 4, dtype=torch.bool)
        expected[moved] = True
        assert torch.equal(difference > 1e-6, expected)


def test_class_token_has_no_place_among_sines():
    position = PositionEmbedding('sincos3d', (2, 3), 16, 1, True)
    table = position(torch.zeros(1, 7, 16))[0]
    assert not table[0].any() and table[1:].any(dim=1).all()
    assert not position.state_dict()


SCRIPT = """
import sys
if {blocked}:
    for name in ('jax', 'flax', 'optax'):
        sys.modules[name] = None
import vivit_jax.torch
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.model_card import ModelCard
import torch
keywords = dict(name='vivit_fe', hidden_size=8, num_heads=2, num_layers=1, mlp_dim=8, num_classes=2,
                tubelet_size=(2, 4, 4), temporal_num_layers=1, attention_implementation='cudnn')
card = ModelCard(keywords, Preprocessing(num_frames=4, crop_size=8, short_side=8), ('a', 'b'))
model = vivit_jax.torch.create_model(**keywords, clip_shape=card.preprocessing.clip_shape)
vivit_jax.torch.save_model(model, sys.argv[1], card)
loaded, found = vivit_jax.torch.load_model(sys.argv[1])
assert found == ModelCard.from_json(card.to_json()) and not loaded.training
clip = torch.rand(1, 4, 8, 8, 3)
assert torch.equal(loaded(clip).features, model(clip).features)
used = [x for x in sys.modules if x.split('.')[0] in ('jax', 'flax', 'jaxlib')]
assert {blocked} or not used, used
"""


@pytest.mark.parametrize('blocked', [True, False])
def test_everything_works_without_jax(blocked, tmp_path):
    script = SCRIPT.format(blocked=blocked)
    command = [sys.executable, '-c', script, str(tmp_path / 'model.safetensors')]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_missing_pytorch_names_the_extra(monkeypatch):
    for name in [x for x in sys.modules if x.startswith('vivit_jax.torch')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(ImportError, match=r"pip install 'vivit_jax\[torch\]'"):
        importlib.import_module('vivit_jax.torch')
