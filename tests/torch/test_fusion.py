"""Models of depth, and of RGB and depth, in PyTorch equal those in JAX."""

import jax
import numpy as np
import pytest

from vivit_jax.heads import by_head, numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models import registry
from vivit_jax.models.registry import MODELS, list_models, model_keywords
from vivit_jax.models.variables import abstract_clip, abstract_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.torch_export import export_torch

torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')

from vivit_jax.torch import create_model, load_model, save_model  # noqa: E402

SPEC = Preprocessing(num_frames=4, crop_size=16, short_side=16)
SIZES = {'hidden_size': 16, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 24}
HEADS = {'verb': 4, 'noun': 3}

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _keywords(name, **keywords):
    known = model_keywords(name)
    length, *_ = known.get('tubelet_size', (2,))
    sizes = {**SIZES, 'num_classes': 5, 'tubelet_size': (length, 4, 4), **MODELS[name].TINY}
    sizes = {keyword: value for keyword, value in sizes.items() if keyword in known}
    return {'name': name, **sizes, 'depth_channels': 1, **keywords}


def _variables(model):
    rng, shapes = np.random.default_rng(0), abstract_variables(model, SPEC.clip_shape)
    params = jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape), shapes['params'])
    batch_stats = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape), shapes['batch_stats'])
    variables = {'params': params, 'batch_stats': batch_stats}
    return jax.tree.map(lambda x: x.astype(np.float32), variables)


def _clip(model):
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: rng.uniform(-1, 1, x.shape).astype(np.float32),
        abstract_clip(model.spec, SPEC.clip_shape, 2),
    )


@pytest.mark.parametrize(
    'keywords',
    [
        *(_keywords(name, modality='depth') for name in list_models()),
        _keywords('vivit_fe', modality='rgbd'),
        _keywords('vivit_fe', modality='rgbd', fusion='logit_mean', num_classes=HEADS),
        _keywords('ctn', modality='rgbd', num_classes=HEADS, depth_channels=3),
    ],
    ids=lambda x: '-'.join(map(str, (x['name'], x['modality'], x['num_classes']))),
)
def test_file_for_pytorch_has_equal_results_and_reads_back(tmp_path, relative_error, keywords):
    model = registry.create_model(**keywords)
    variables, clip = _variables(model), _clip(model)
    card = ModelCard(keywords, SPEC, numbered_labels(keywords['num_classes']))
    export_torch(card, variables['params'], tmp_path / 'a.safetensors', variables['batch_stats'])

    twin, _ = load_model(tmp_path / 'a.safetensors')
    with torch.no_grad():
        found = twin(jax.tree.map(torch.tensor, clip))
    expected = jax.jit(model.apply)(variables, clip)
    assert relative_error(found.features, expected.features) < 1e-5
    outputs = {'': (found.logits, expected.logits)}
    outputs |= {name: (found.streams[name], x) for name, x in expected.streams.items()}
    for logits, expected_logits in outputs.values():
        for head, value in by_head(logits).items():
            assert relative_error(value, by_head(expected_logits)[head]) < 1e-5
    assert found.streams.keys() == expected.streams.keys()

    save_model(twin, tmp_path / 'b.safetensors', card)
    weights = read_weights(tmp_path / 'b.safetensors')
    for kind in ('params', 'batch_stats'):
        jax.tree.map(np.testing.assert_array_equal, getattr(weights, kind), variables[kind])
    if keywords['modality'] == 'rgbd':
        prefixes = {name.split('.')[0] for name in twin.state_dict()}
        assert prefixes == {'rgb', 'depth'}


def test_gradients_reach_both_streams_and_wrong_clips_are_errors():
    keywords = _keywords('vivit_joint', modality='rgbd')
    model = create_model(**keywords, clip_shape=SPEC.clip_shape)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    clip = jax.tree.map(torch.tensor, _clip(registry.create_model(**keywords)))
    model(clip).logits.square().sum().backward()
    for name in ('rgb', 'depth'):
        assert getattr(model, name).tokenizer.projection.weight.grad.abs().max() > 0
    for other, message in (
        (clip['rgb'], 'takes a dict'),
        ({'depth': clip['depth']}, r"has the keys \['depth'\]"),
        ({**clip, 'depth': clip['depth'][:1]}, 'must have the same number'),
        ({**clip, 'depth': clip['rgb']}, r'\(t, h, w, c\)=\(4, 16, 16, 1\)'),
    ):
        with pytest.raises(ValueError, match=message):
            model(other)
