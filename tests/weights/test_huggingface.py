"""Folders of Hugging Face's ViViT, compared with transformers on random weights."""

import dataclasses
import json
import os

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from vivit_jax.errors import UserError
from vivit_jax.heads import numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_params
from vivit_jax.train.losses import binary_cross_entropy
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.huggingface import matches, read_huggingface, write_huggingface

torch = pytest.importorskip('torch', reason='needs PyTorch')
transformers = pytest.importorskip('transformers', reason='needs transformers')

SPEC = Preprocessing(num_frames=4, frame_stride=3, short_side=20, crop_size=16)
CARD = ModelCard(
    {
        'name': 'vivit_joint',
        'num_classes': 3,
        'hidden_size': 24,
        'num_layers': 2,
        'num_heads': 3,
        'mlp_dim': 40,
        'tubelet_size': (2, 8, 4),
    },
    SPEC,
    ('jump', 'run', 'ßit'),
)


def make_model(kind=transformers.VivitForVideoClassification, std=0.3, **changes):
    """A model of transformers; all parameters are random, as some are zero initially."""
    keywords = {
        'image_size': 16,
        'num_frames': 4,
        'tubelet_size': [2, 8, 4],
        'hidden_size': 24,
        'num_hidden_layers': 2,
        'num_attention_heads': 3,
        'intermediate_size': 40,
        'id2label': {0: 'jump', 1: 'run', 2: 'ßit'},
        'label2id': {'jump': 0, 'run': 1, 'ßit': 2},
    }
    torch.manual_seed(0)
    model = kind(transformers.VivitConfig(**{**keywords, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def make_params(card=CARD, scale=0.3):
    rng = np.random.default_rng(0)
    shapes = abstract_params(create_model(**card.model), card.preprocessing.clip_shape)
    return jax.tree.map(lambda x: rng.normal(0, scale, x.shape).astype(np.float32), shapes)


def make_clip(spec=SPEC):
    return np.random.default_rng(1).uniform(-1, 1, (1, *spec.clip_shape, 3)).astype(np.float32)


def our_logits(card, params, clip):
    model = create_model(**card.model)
    with jax.default_matmul_precision('highest'):
        return np.asarray(jax.jit(model.apply)({'params': params}, clip).logits)


def their_logits(model, clip):
    with torch.inference_mode():
        return model(torch.from_numpy(clip).permute(0, 1, 4, 2, 3)).logits.numpy()


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def load_theirs(folder):
    """Loads a folder with transformers; its keys must be exactly the keys of the model."""
    model, info = transformers.VivitForVideoClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def tensors_of(folder):
    return safetensors.numpy.load_file(folder / 'model.safetensors')


@pytest.mark.parametrize('activation', ['gelu_fast', 'gelu', 'gelu_new', 'quick_gelu'])
def test_their_model_becomes_ours_and_theirs_again(tmp_path, activation):
    model = make_model(hidden_act=activation, layer_norm_eps=1e-3)
    model.save_pretrained(tmp_path / 'theirs')
    assert matches(tmp_path / 'theirs')
    weights = read_huggingface(tmp_path / 'theirs')
    assert weights.grid == (2, 2, 4) and weights.has_head
    assert weights.card.label_names == ('jump', 'run', 'ßit')
    clip = make_clip()
    expected = their_logits(model, clip)
    assert relative_error(our_logits(weights.card, weights.params, clip), expected) < 1e-5

    write_huggingface(weights.card, weights.params, tmp_path / 'back')
    back, theirs = tensors_of(tmp_path / 'back'), tensors_of(tmp_path / 'theirs')
    assert back.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(back[name], tensor)
    assert relative_error(their_logits(load_theirs(tmp_path / 'back'), clip), expected) < 1e-6


@pytest.mark.parametrize('gelu', ['tanh', 'exact', 'quick'])
def test_our_model_becomes_theirs_and_ours_again(tmp_path, gelu):
    card = dataclasses.replace(CARD, model={**CARD.model, 'gelu': gelu, 'layer_norm_eps': 1e-4})
    params = make_params(card)
    write_huggingface(card, params, tmp_path)
    model, clip = load_theirs(tmp_path), make_clip()
    assert model.config.id2label == {0: 'jump', 1: 'run', 2: 'ßit'}
    assert model.config.label2id == {'jump': 0, 'run': 1, 'ßit': 2}
    assert relative_error(their_logits(model, clip), our_logits(card, params, clip)) < 1e-5

    weights = read_huggingface(tmp_path)
    assert (
        weights.card.preprocessing == SPEC
    )  # also the stride, for which their config has no field
    assert weights.card.label_names == card.label_names
    assert create_model(**weights.card.model) == create_model(**card.model)
    jax.tree.map(np.testing.assert_array_equal, weights.params, params)


def test_keywords_that_they_lack_are_kept_and_others_are_theirs(tmp_path):
    ours = {'drop_path_rate': 0.3, 'dropout_rate': 0.1, 'remat': 'block', 'dtype': 'bfloat16'}
    card = dataclasses.replace(CARD, model={**CARD.model, **ours, 'size': 'Ti/16x2'})
    write_huggingface(card, make_params(card), tmp_path)
    assert create_model(**read_huggingface(tmp_path).card.model) == create_model(**card.model)
    change_config(tmp_path, hidden_act='gelu', hidden_dropout_prob=0.2, layer_norm_eps=1e-3)
    model = create_model(**read_huggingface(tmp_path).card.model)
    assert (model.spec.gelu, model.spec.dropout_rate, model.spec.layer_norm_eps) == (
        'exact',
        0.2,
        1e-3,
    )
    assert (model.spec.drop_path_rate, model.spec.remat) == (0.3, 'block')
    change_config(tmp_path, vivit_jax={'model': 'x'})
    with pytest.raises(UserError, match=r"config\.json: the entry 'vivit_jax' is damaged"):
        read_huggingface(tmp_path)


def change_config(folder, **changes):
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, **changes}))


def test_a_field_that_a_folder_lacks_is_as_in_their_configuration(tmp_path):
    defaults = transformers.VivitConfig()
    make_model().save_pretrained(tmp_path)
    for field, value in (('layer_norm_eps', 1e-6), ('hidden_act', 'gelu_fast')):
        assert getattr(defaults, field) == value
        config = json.loads((tmp_path / 'config.json').read_text())
        del config[field]
        (tmp_path / 'config.json').write_text(json.dumps(config))
    model = create_model(**read_huggingface(tmp_path).card.model)
    assert (model.spec.layer_norm_eps, model.spec.gelu) == (1e-6, 'tanh')
    usual = create_model('vivit_joint').spec
    assert usual.tubelet_size == tuple(defaults.tubelet_size)
    assert (usual.hidden_size, usual.mlp_dim) == (defaults.hidden_size, defaults.intermediate_size)
    assert (usual.num_layers, usual.num_heads) == (
        defaults.num_hidden_layers,
        defaults.num_attention_heads,
    )
    assert (usual.dropout_rate, usual.attention_dropout_rate) == (
        defaults.hidden_dropout_prob,
        defaults.attention_probs_dropout_prob,
    )


def test_what_was_fine_tuned_there_is_read(tmp_path):
    write_huggingface(CARD, make_params(), tmp_path / 'start')
    model = transformers.VivitForVideoClassification.from_pretrained(
        tmp_path / 'start', num_labels=5, ignore_mismatched_sizes=True
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    model.save_pretrained(tmp_path / 'tuned')
    weights = read_huggingface(tmp_path / 'tuned')
    assert weights.card.preprocessing == SPEC  # although they wrote no processor config
    assert weights.card.label_names == tuple(f'LABEL_{i}' for i in range(5))
    clip = make_clip()
    found = our_logits(weights.card, weights.params, clip)
    assert relative_error(found, their_logits(model, clip)) < 1e-5


def flat_params(folder):
    return flax.traverse_util.flatten_dict(read_huggingface(folder).params, sep='/')


def assert_same_params(folder, other):
    expected, found = flat_params(folder), flat_params(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_names_of_memory_shards_and_pickles_without_code_are_read_alike(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / 'whole')
    model.save_pretrained(tmp_path / 'shards', max_shard_size='10KB')
    assert (tmp_path / 'shards/model.safetensors.index.json').exists()
    assert_same_params(tmp_path / 'whole', tmp_path / 'shards')

    config = (tmp_path / 'whole/config.json').read_text()
    for folder in ('memory', 'pickle'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'config.json').write_text(config)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    assert (
        'vivit.layers.0.attention.q_proj.weight' in state
    )  # otherwise the test would test nothing
    safetensors.numpy.save_file(
        {name: value.numpy() for name, value in state.items()},
        tmp_path / 'memory/model.safetensors',
    )
    torch.save(state, tmp_path / 'pickle/pytorch_model.bin')
    assert_same_params(tmp_path / 'whole', tmp_path / 'memory')
    assert_same_params(tmp_path / 'whole', tmp_path / 'pickle')


@pytest.mark.parametrize('prefix', ['', 'vivit.'])
def test_encoder_alone_has_no_classifier(tmp_path, prefix):
    model = make_model(transformers.VivitModel)
    model.save_pretrained(tmp_path)
    tensors = {f'{prefix}{name}': tensor for name, tensor in tensors_of(tmp_path).items()}
    safetensors.numpy.save_file(tensors, tmp_path / 'model.safetensors')
    weights = read_huggingface(tmp_path)
    assert not weights.has_head and 'output_projection' not in weights.params
    assert weights.card.label_names == ('0',)
    assert set(weights.unused) == {f'{prefix}pooler.dense.{name}' for name in ('bias', 'weight')}
    head = {'kernel': np.zeros((24, 1), np.float32), 'bias': np.zeros(1, np.float32)}
    params = {**weights.params, 'output_projection': head}
    clip = make_clip()
    with torch.inference_mode():
        hidden = model(torch.from_numpy(clip).permute(0, 1, 4, 2, 3)).last_hidden_state[:, 0]
    features = create_model(**weights.card.model).apply({'params': params}, clip).features
    assert relative_error(features, hidden.numpy()) < 1e-5


VIDEO = [
    np.zeros((4, 24, 30, 3), np.uint8),
    np.full((4, 24, 30, 3), 255, np.uint8),
    np.random.default_rng(2).integers(0, 256, (4, 24, 30, 3), dtype=np.uint8),
]


@pytest.mark.parametrize(
    'value_range', [(-1.0, 1.0), (0.0, 1.0), (-2.0, 3.0), (-1 / 3, 2 / 3), (1.0, -1.0)]
)
def test_their_processor_makes_the_pixels_that_our_weights_expect(tmp_path, value_range):
    spec = dataclasses.replace(SPEC, value_range=value_range)
    write_huggingface(dataclasses.replace(CARD, preprocessing=spec), make_params(), tmp_path)
    processor = transformers.VivitImageProcessor.from_pretrained(tmp_path)
    low, high = value_range
    for video in VIDEO:
        sized = processor(list(video), do_rescale=False, do_normalize=False, offset=False)
        pixels = np.array(processor(list(video))['pixel_values'])
        expected = low + np.array(sized['pixel_values']) * (high - low) / 255
        np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-6)
    assert pixels.shape == (1, 4, 3, 16, 16)
    assert processor.size == {'shortest_edge': 20}
    weights = read_huggingface(tmp_path)
    assert weights.card.preprocessing == spec
    assert not weights.notes  # no advice to convert to another range


@pytest.mark.parametrize(
    'settings',
    [
        {},  # of their class: twice normalized
        {'do_normalize': False},
        {'offset': False, 'rescale_factor': 1 / 255},
        {'offset': False, 'rescale_factor': 1 / 255, 'do_normalize': False},
        {'image_mean': [0.1] * 3, 'image_std': [0.7] * 3},
    ],
)
def test_range_of_a_processor_is_what_it_makes_of_black_and_white(tmp_path, settings):
    make_model().save_pretrained(tmp_path)
    processor = transformers.VivitImageProcessor(
        size={'shortest_edge': 20}, crop_size={'height': 16, 'width': 16}, **settings
    )
    processor.save_pretrained(tmp_path)
    black, white = (np.array(processor(list(x))['pixel_values']) for x in VIDEO[:2])
    weights = read_huggingface(tmp_path)
    expected = float(black.mean()), float(white.mean())
    np.testing.assert_allclose(weights.card.preprocessing.value_range, expected, rtol=0, atol=1e-6)
    assert ('--value_range=-1,1' in str(weights.notes)) == (abs(expected[0] + 1) > 1e-3)
    os.rename(tmp_path / 'preprocessor_config.json', tmp_path / 'video_preprocessor_config.json')
    if settings.get('offset', True):  # their video processor always does this
        assert read_huggingface(tmp_path).card == weights.card
    corrected = read_huggingface(tmp_path, (-1.0, 1.0))
    assert corrected.card.preprocessing.value_range == (-1.0, 1.0)
    assert '--value_range' not in str(corrected.notes)


@pytest.mark.parametrize('name', ['image_mean', 'image_std'])
def test_colours_treated_differently_are_refused(tmp_path, name):
    make_model().save_pretrained(tmp_path)
    transformers.VivitImageProcessor(**{name: [0.4, 0.5, 0.6]}).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf'{name}=\[0.4, 0.5, 0.6\].*differ between colours'):
        read_huggingface(tmp_path)
    assert read_huggingface(tmp_path, (-1.0, 1.0)).card.preprocessing.value_range == (-1.0, 1.0)


def test_processors_of_different_ranges_are_refused(tmp_path):
    write_huggingface(CARD, make_params(), tmp_path)
    path = tmp_path / 'video_preprocessor_config.json'
    path.write_text((tmp_path / 'preprocessor_config.json').read_text())
    assert read_huggingface(tmp_path).card.preprocessing == SPEC
    path.write_text('{}')
    with pytest.raises(UserError, match=r'different ranges, .*-3.*--value_range'):
        read_huggingface(tmp_path)
    assert read_huggingface(tmp_path, (0.0, 1.0)).card.preprocessing.value_range == (0.0, 1.0)


def test_another_processor_than_that_of_our_card_counts_and_is_told(tmp_path):
    write_huggingface(CARD, make_params(), tmp_path)
    processor = transformers.VivitImageProcessor(size={'shortest_edge': 18}, resample=3)
    processor.save_pretrained(tmp_path)
    weights = read_huggingface(tmp_path)
    spec = weights.card.preprocessing
    assert (spec.short_side, spec.interpolation, spec.frame_stride) == (18, 'bicubic', 3)
    assert spec.value_range == (-3.0, 1.0)
    assert 'began with were trained on -1 to 1' in str(weights.notes)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'size': {'height': 16, 'width': 16}}, 'short side of frames becomes 18'),
        ({'size': {'shortest_edge': 8}}, 'short side of frames becomes 18'),
        ({'do_resize': False}, 'do_resize=False'),
        ({'resample': 1}, 'resample=1, here it is bilinear'),
    ],
)
def test_resizing_that_we_lack_is_told(tmp_path, settings, words):
    make_model().save_pretrained(tmp_path)
    transformers.VivitImageProcessor(**settings).save_pretrained(tmp_path)
    assert words in str(read_huggingface(tmp_path).notes)


@pytest.mark.parametrize(
    ('settings', 'short_side', 'value_range'),
    [
        ({'size': 20}, 20, (-3.0, 1.0)),
        ({'size': None, 'image_mean': None}, 256, (-3.0, 1.0)),
        ({'size': 20, 'image_mean': 0, 'image_std': 1}, 20, (-1.0, 1.0)),
    ],
)
def test_short_forms_of_processors_are_read_as_they_are_there(
    tmp_path, settings, short_side, value_range
):
    make_model().save_pretrained(tmp_path)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(settings))
    processor = transformers.VivitImageProcessor.from_pretrained(tmp_path)
    assert processor.size == {'shortest_edge': short_side}
    found = [np.array(processor(list(x), crop_size=16)['pixel_values']) for x in VIDEO[:2]]
    np.testing.assert_allclose([x.mean() for x in found], value_range, rtol=0, atol=1e-6)
    spec = read_huggingface(tmp_path).card.preprocessing
    assert (spec.short_side, spec.value_range) == (short_side, value_range)


def test_all_that_is_wrong_with_the_tensors_is_listed(tmp_path):
    make_model().save_pretrained(tmp_path)
    tensors = tensors_of(tmp_path)
    for name in ('vivit.layernorm.bias', 'vivit.embeddings.cls_token', 'classifier.bias'):
        del tensors[name]
    tensors['vivit.other'] = np.zeros(3, np.float32)
    tensors['classifier.weight'] = np.zeros((3, 23), np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / 'model.safetensors')
    with pytest.raises(UserError) as caught:
        read_huggingface(tmp_path)
    message = str(caught.value)
    for part in (
        'vivit.layernorm.bias: missing',
        'vivit.embeddings.cls_token: missing',
        'classifier.bias: missing, needed (3,)',
        'vivit.other: the model has no such tensor',
        'classifier.weight: (3, 23), needed (3, 24)',
    ):
        assert part in message


def test_damaged_folders_are_named(tmp_path):
    make_model().save_pretrained(tmp_path)
    content = (tmp_path / 'model.safetensors').read_bytes()
    (tmp_path / 'model.safetensors').write_bytes(content[:-100])
    with pytest.raises(UserError, match=r'model\.safetensors is damaged'):
        read_huggingface(tmp_path)
    (tmp_path / 'model.safetensors').unlink()
    with pytest.raises(UserError, match=r'none of model\.safetensors'):
        read_huggingface(tmp_path)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(UserError, match=r'config\.json cannot be read'):
        matches(tmp_path)


@pytest.mark.parametrize('change', [{'qkv_bias': False}, {'hidden_act': 'relu'}])
def test_their_variants_that_we_lack_are_refused(tmp_path, change):
    make_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=next(iter(change))):
        read_huggingface(tmp_path)


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        ({'name': 'vivit_fsa'}, 'vivit_fsa'),
        ({'pool': 'mean'}, 'pool=mean'),
        ({'position': 'sincos3d'}, 'position=sincos3d'),
        ({'pre_norm': True}, 'pre_norm=True'),
        (
            {'tokenizer': 'uniform_frames', 'tubelet_size': (1, 8, 4)},
            'tokenizer=uniform_frames',
        ),
        ({'num_classes': {'verb': 2, 'noun': 3}}, 'heads verb, noun'),
    ],
)
def test_our_models_that_they_lack_are_refused(tmp_path, change, word):
    model = {**CARD.model, **change}
    card = ModelCard(model, SPEC, numbered_labels(model['num_classes']))
    if card.model['name'] == 'vivit_fsa':
        card.model['num_heads'] = 4
    with pytest.raises(UserError, match=f'has no .*{word}.*--to=torch'):
        write_huggingface(card, {}, tmp_path / 'folder')
    assert not (tmp_path / 'folder').exists()


@pytest.mark.slow
def test_published_clips_and_widths_have_equal_logits(tmp_path):
    spec = Preprocessing()
    model = {'name': 'vivit_joint', 'num_classes': 400, 'num_layers': 2}
    card = ModelCard(model, spec, numbered_labels(400))
    params = make_params(card, scale=0.03)
    write_huggingface(card, params, tmp_path)
    clip = make_clip(spec)
    expected = our_logits(card, params, clip)
    assert relative_error(their_logits(load_theirs(tmp_path), clip), expected) < 1e-4
    weights = read_huggingface(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, weights.params, params)


def test_units_are_frames_of_one_clip(tmp_path):
    spec = dataclasses.replace(SPEC, sampling='units', num_units=2, num_frames=2)
    card, params = dataclasses.replace(CARD, preprocessing=spec), make_params()
    write_huggingface(card, params, tmp_path)
    clip = make_clip()
    expected = our_logits(card, params, clip)
    assert relative_error(their_logits(load_theirs(tmp_path), clip), expected) < 1e-5
    assert read_huggingface(tmp_path).card.preprocessing == spec


def test_any_number_of_labels_go_to_transformers_and_back(tmp_path):
    card = dataclasses.replace(CARD, is_multi_label=True)
    params = make_params(card)
    write_huggingface(card, params, tmp_path / 'hf')
    model = transformers.VivitForVideoClassification.from_pretrained(tmp_path / 'hf')
    assert model.config.problem_type == 'multi_label_classification'
    targets = torch.tensor([[1.0, 0.0, 1.0]])
    clip = make_clip()
    loss = model(torch.tensor(clip).permute(0, 1, 4, 2, 3), labels=targets).loss
    ours = binary_cross_entropy(our_logits(card, params, clip), targets.numpy())
    np.testing.assert_allclose(ours, loss.item(), rtol=1e-4)
    assert read_huggingface(tmp_path / 'hf').card.is_multi_label


@pytest.mark.parametrize(
    ('problem', 'expected'),
    [
        ('multi_label_classification', True),
        ('single_label_classification', False),
        (None, False),
    ],
)
def test_the_configuration_says_how_many_labels_a_video_has(tmp_path, problem, expected):
    make_model(problem_type=problem).save_pretrained(tmp_path)
    assert read_huggingface(tmp_path).card.is_multi_label == expected
