"""Image ViTs in the layouts of four libraries, written here name by name."""

import json
import re

import flax.traverse_util
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from vivit_jax.errors import UserError
from vivit_jax.models.registry import create_model
from vivit_jax.weights.from_imagenet_vit import matches, read_image_vit
from vivit_jax.weights.image_vit_config import read_config
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.positions import resize_positions
from vivit_jax.weights.tensor_files import open_tensors

GRID, SIDE, WIDTH, HEADS, CLASSES = (3, 3), 12, 16, 2, 7
TABLE = 'Transformer/posembed_input/pos_embedding'
IMAGES = np.random.default_rng(2).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
HEAD = ('output_projection/kernel', 'output_projection/bias')


def augreg(vit):
    renamed = {}
    for name, value in vit.items():
        name = name.replace('MultiHeadDotProductAttention_0', 'MultiHeadDotProductAttention_1')
        name = name.replace('LayerNorm_1', 'LayerNorm_2').replace('MlpBlock_0', 'MlpBlock_3')
        renamed[name.replace('output_projection', 'head')] = value
    return renamed


def big_vision(vit, prefix='params/', table='pos_embedding'):
    return {
        prefix + name.replace('output_projection', 'head').replace(TABLE, table): value
        for name, value in vit.items()
    }


def scanned(arrays):
    stacked = {}
    for name, value in arrays.items():
        if 'encoderblock_0/' in name:
            layers = [value, arrays[name.replace('encoderblock_0', 'encoderblock_1')]]
            stacked[name.replace('encoderblock_0', 'encoderblock')] = np.stack(layers)
        elif 'encoderblock_1/' not in name:
            stacked[name] = value
    return stacked


def torch_block(vit, layer):
    """The arrays of a block in the layout of PyTorch's layers: [out in]."""
    block = f'Transformer/encoderblock_{layer}'
    attention = f'{block}/MultiHeadDotProductAttention_0'
    result = {
        ('out', 'weight'): vit[f'{attention}/out/kernel'].reshape(WIDTH, WIDTH).T,
        ('out', 'bias'): vit[f'{attention}/out/bias'],
    }
    for name in ('query', 'key', 'value'):
        result[name, 'weight'] = vit[f'{attention}/{name}/kernel'].reshape(WIDTH, WIDTH).T
        result[name, 'bias'] = vit[f'{attention}/{name}/bias'].reshape(WIDTH)
    for name, ours in (('norm1', 'LayerNorm_0'), ('norm2', 'LayerNorm_1')):
        result[name, 'weight'] = vit[f'{block}/{ours}/scale']
        result[name, 'bias'] = vit[f'{block}/{ours}/bias']
    for name, ours in (('fc1', 'Dense_0'), ('fc2', 'Dense_1')):
        result[name, 'weight'] = vit[f'{block}/MlpBlock_0/{ours}/kernel'].T
        result[name, 'bias'] = vit[f'{block}/MlpBlock_0/{ours}/bias']
    return result


def torch_rest(vit, patches, table, token, norm, head):
    """The arrays outside the blocks, under the given names."""
    result = {
        f'{patches}.weight': np.moveaxis(vit['embedding/kernel'], (2, 3), (1, 0)),
        f'{patches}.bias': vit['embedding/bias'],
        table: vit[TABLE],
        f'{norm}.weight': vit['Transformer/encoder_norm/scale'],
        f'{norm}.bias': vit['Transformer/encoder_norm/bias'],
    }
    if 'cls' in vit:
        result[token] = vit['cls']
    if HEAD[0] in vit:
        result[f'{head}.weight'], result[f'{head}.bias'] = vit[HEAD[0]].T, vit[HEAD[1]]
    return result


def timm(vit):
    result = torch_rest(vit, 'patch_embed.proj', 'pos_embed', 'cls_token', 'norm', 'head')
    names = {'out': 'attn.proj', 'fc1': 'mlp.fc1', 'fc2': 'mlp.fc2'}
    for layer in range(2):
        parts = torch_block(vit, layer)
        for leaf in ('weight', 'bias'):
            qkv = [parts.pop((name, leaf)) for name in ('query', 'key', 'value')]
            result[f'blocks.{layer}.attn.qkv.{leaf}'] = np.concatenate(qkv)
        for (name, leaf), value in parts.items():
            result[f'blocks.{layer}.{names.get(name, name)}.{leaf}'] = value
    return result


def hugging_face(vit, prefix='vit.', in_memory=False):
    outside = ('patch_embeddings.projection', 'position_embeddings', 'cls_token')
    outside = [f'{prefix}embeddings.{name}' for name in outside]
    result = torch_rest(vit, *outside, f'{prefix}layernorm', 'classifier')
    names = {
        'query': 'attention.attention.query',
        'key': 'attention.attention.key',
        'value': 'attention.attention.value',
        'out': 'attention.output.dense',
        'norm1': 'layernorm_before',
        'norm2': 'layernorm_after',
        'fc1': 'intermediate.dense',
        'fc2': 'output.dense',
    }
    if in_memory:
        names |= {name: f'attention.{name[0]}_proj' for name in ('query', 'key', 'value', 'out')}
        names |= {'fc1': 'mlp.fc1', 'fc2': 'mlp.fc2'}
    for layer in range(2):
        stem = f'{prefix}layers.{layer}' if in_memory else f'{prefix}encoder.layer.{layer}'
        for (name, leaf), value in torch_block(vit, layer).items():
            result[f'{stem}.{names[name]}.{leaf}'] = value
    return result


def write(folder, arrays, suffix='.npz', config=None):
    path = folder / f'vit{suffix}'
    if suffix == '.npz':
        np.savez(path, **arrays)
    elif suffix == '.safetensors':
        arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        safetensors.numpy.save_file(arrays, path)
    else:
        torch = pytest.importorskip('torch', reason='needs PyTorch')
        torch.save({name: torch.from_numpy(value.copy()) for name, value in arrays.items()}, path)
    if config is not None:
        (folder / 'config.json').write_text(json.dumps(config))
    return path


def read(path):
    tensors = open_tensors(path)
    assert matches(tensors.keys())
    return read_image_vit(tensors, path)


def assert_params(weights, vit):
    found = flax.traverse_util.flatten_dict(weights.params, sep='/')
    assert sorted(found) == sorted(vit)
    for name, value in vit.items():
        assert found[name].dtype == np.float32, name
        np.testing.assert_array_equal(found[name], value, name)


def features(weights, images=IMAGES, **keywords):
    params = weights.params
    if not weights.has_head:
        zeros = {'kernel': np.zeros((WIDTH, 1)), 'bias': np.zeros(1)}
        params = params | {'output_projection': zeros}
    model = create_model(**{**weights.card.model, **keywords})
    return model.apply({'params': params}, images[:, None]).features


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


FLAX = {
    'augreg': augreg,
    'big_vision': big_vision,
    'opt/target': lambda vit: big_vision(vit, 'opt/target/') | {'opt/state/step': np.array(3)},
    'target/params': lambda vit: big_vision(vit, 'target/params/'),
    'no prefix': lambda vit: big_vision(vit, ''),
    'older table': lambda vit: big_vision(vit, table='Transformer/pos_embedding'),
    'oldest table': lambda vit: big_vision(vit, table=TABLE),
    'table [n d]': lambda vit: augreg(vit | {TABLE: vit[TABLE][0]}),
    'scanned': lambda vit: scanned(big_vision(vit)),
    'bfloat16': lambda vit: {k: v.astype(ml_dtypes.bfloat16) for k, v in augreg(vit).items()},
}


@pytest.mark.parametrize('layout', FLAX)
@pytest.mark.parametrize('has_class_token', [True, False], ids=['cls', 'gap'])
def test_vits_of_jax(layout, has_class_token, tmp_path, image_vit, image_features):
    vit = image_vit(has_class_token, GRID)
    if layout == 'bfloat16':
        vit = {k: v.astype(ml_dtypes.bfloat16).astype(np.float32) for k, v in vit.items()}
    weights = read(write(tmp_path, FLAX[layout](vit)))
    assert_params(weights, vit)
    assert weights.card.model == {
        'name': 'vivit_joint',
        'tokenizer': 'uniform_frames',
        'num_sampled_frames': 1,
        'tubelet_size': (1, 4, 4),
        'hidden_size': WIDTH,
        'num_layers': 2,
        'num_heads': HEADS,
        'mlp_dim': 24,
        'pool': 'cls' if has_class_token else 'mean',
        'gelu': 'tanh',
        'layer_norm_eps': 1e-6,
        'pre_norm': False,
        'num_classes': CLASSES,
    }
    spec = weights.card.preprocessing
    assert (spec.clip_shape, spec.frame_stride, spec.short_side) == ((1, SIDE, SIDE), 1, 14)
    assert spec.value_range == (-1, 1)
    assert weights.card.label_names == tuple('0123456')
    assert weights.grid == (1, *GRID) and weights.is_image_model and weights.has_head
    library = 'AugReg' if layout in ('augreg', 'table [n d]', 'bfloat16') else 'big_vision'
    assert weights.kind == f'image ViT, {library} .npz'
    assert weights.unused == (('opt/state/*',) if layout == 'opt/target' else ())
    assert error(features(weights), image_features(vit, IMAGES)) < 1e-5


OTHER_HEADS = {
    'pre_logits': (
        augreg,
        '',
        {'pre_logits/kernel': np.ones((16, 5)), 'pre_logits/bias': np.ones(5)},
    ),
    'MAP': (big_vision, 'params/', {'params/MAPHead_0/probe': np.ones((1, 1, 16))}),
    'inlined MAP': (big_vision, 'params/', {'params/probe': np.ones((1, 1, 16))}),
}


@pytest.mark.parametrize('head', OTHER_HEADS)
def test_classifier_behind_something_else_is_left_out(head, tmp_path, image_vit, image_features):
    vit = image_vit(False, GRID)
    layout, prefix, extra = OTHER_HEADS[head]
    weights = read(write(tmp_path, layout(vit) | extra))
    assert not weights.has_head and weights.card.model['num_classes'] == 1
    assert weights.card.label_names == ('0',)
    kept = {
        'pre_logits': 'pre_logits/*',
        'MAP': 'params/MAPHead_0/*',
        'inlined MAP': 'params/probe',
    }
    assert set(weights.unused) == {kept[head], f'{prefix}head/*'}
    assert_params(weights, {name: vit[name] for name in vit if name not in HEAD})
    assert error(features(weights), image_features(vit, IMAGES)) < 1e-5


def test_image_tower_of_a_model_of_images_and_texts(tmp_path, image_vit):
    vit = image_vit(False, GRID)
    text = {
        'params/txt/Encoder_0/encoderblock_0/LayerNorm_0/scale': np.ones(3),
        'params/t': np.ones(1),
    }
    weights = read(write(tmp_path, big_vision(vit, 'params/img/') | text))
    assert not weights.has_head
    assert set(weights.unused) == {'params/img/head/*', 'params/txt/*', 'params/t'}
    assert_params(weights, {name: vit[name] for name in vit if name not in HEAD})


def test_no_classifier(tmp_path, image_vit):
    vit = {name: value for name, value in image_vit(True, GRID).items() if name not in HEAD}
    weights = read(write(tmp_path, augreg(vit)))
    assert not weights.has_head and weights.unused == ()
    assert_params(weights, vit)


@pytest.mark.parametrize('has_class_token', [True, False])
def test_fixed_positions_of_big_vision(has_class_token, tmp_path, image_vit, image_features):
    vit = image_vit(has_class_token, (4, 4), p=56)
    arrays = big_vision(vit)
    del arrays['params/pos_embedding']
    weights = read(write(tmp_path, arrays))
    # Written by hand: column x, row y of patch n; four frequencies from 1 to 1 / 10000.
    table = np.zeros((16, WIDTH))
    for n in range(16):
        y, x = divmod(n, 4)
        for i in range(4):
            frequency = 10000 ** (-i / 3)
            table[n, i], table[n, 4 + i] = np.sin(x * frequency), np.cos(x * frequency)
            table[n, 8 + i], table[n, 12 + i] = np.sin(y * frequency), np.cos(y * frequency)
    found = weights.params['Transformer']['posembed_input']['pos_embedding']
    np.testing.assert_allclose(found[0, int(has_class_token) :], table, atol=1e-6)
    assert found.shape[1] == 16 + has_class_token and not found[0, : int(has_class_token)].any()
    assert weights.card.preprocessing.clip_shape == (1, 224, 224) and weights.grid == (1, 4, 4)
    assert 'fixed 2-D sines and cosines' in str(weights.notes)
    images = np.random.default_rng(3).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    expected = image_features(vit | {TABLE: found}, images)
    assert error(features(weights, images), expected) < 1e-5


@pytest.mark.parametrize('layout', ['big_vision', 'timm'])
def test_class_token_without_a_place(layout, tmp_path, image_vit, image_features):
    vit = image_vit(True, GRID)
    places = vit | {TABLE: vit[TABLE][:, 1:]}
    if layout == 'timm':
        path = write(tmp_path, timm(places), '.safetensors', {'num_attention_heads': HEADS})
    else:
        path = write(tmp_path, big_vision(places))
    vit[TABLE][:, 0] = 0
    weights = read(path)
    assert_params(weights, vit)
    assert error(features(weights, gelu='tanh'), image_features(vit, IMAGES)) < 1e-5


def table_of(weights):
    return weights.params['Transformer']['posembed_input']['pos_embedding']


@pytest.mark.parametrize(
    ('layout', 'config', 'way'),
    [
        (
            timm,
            {'pretrained_cfg': {'input_size': [3, 12, 20]}, 'architecture': 'vit_tiny'},
            'antialiased bicubic',
        ),
        (
            timm,
            {'model_args': {'img_size': [12, 20]}, 'architecture': 'vit_tiny'},
            'antialiased bicubic',
        ),
        (hugging_face, {'image_size': [12, 20]}, 'bicubic'),
    ],
)
def test_grids_that_are_not_square(layout, config, way, tmp_path, image_vit):
    vit = image_vit(True, (3, 5))  # as many rows as a square of 4x4 without a class token has
    path = write(tmp_path, layout(vit), '.safetensors', {'num_attention_heads': HEADS, **config})
    weights = read(path)
    assert weights.grid == (1, 4, 4) and 'resized from a grid of 1x3x5' in str(weights.notes)
    expected = resize_positions(vit[TABLE], (3, 5), (4, 4), 1, way)
    np.testing.assert_allclose(table_of(weights), expected, rtol=1e-6, atol=1e-7)
    assert weights.card.preprocessing.crop_size == 16


def test_grids_that_nobody_tells(tmp_path, image_vit):
    vit, config = image_vit(True, (3, 5)), {'num_attention_heads': HEADS}
    weights = read(write(tmp_path, timm(vit), '.safetensors', config))
    assert 'table of 4x4 places, without the class token, assumed' in str(weights.notes)
    assert table_of(weights).shape == (1, 17, WIDTH)
    with pytest.raises(UserError, match=r'15 places .* no square; .*"image_size": \[height, width'):
        read(write(tmp_path, hugging_face(vit), '.safetensors', config))


def test_a_table_of_other_images_than_the_configuration_tells(tmp_path, image_vit):
    config = {'num_attention_heads': HEADS, 'image_size': 16}
    weights = read(write(tmp_path, hugging_face(image_vit(True, GRID)), '.safetensors', config))
    assert weights.grid == (1, 3, 3)
    assert 'images of 4x4 patches, but the position table has 10 rows' in str(weights.notes)


def test_attention_without_biases(tmp_path, image_vit, image_features):
    vit = image_vit(True, GRID)
    biases = [name for name in vit if re.search('(query|key|value)/bias', name)]
    vit |= {name: np.zeros_like(vit[name]) for name in biases}
    arrays = {name: x for name, x in timm(vit).items() if not name.endswith('qkv.bias')}
    path = write(tmp_path, arrays, '.safetensors', {'num_attention_heads': HEADS})
    assert_params(read(path), vit)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
@pytest.mark.parametrize('has_class_token', [True, False], ids=['cls', 'avg'])
def test_vits_of_timm(suffix, has_class_token, tmp_path, image_vit, image_features):
    vit = image_vit(has_class_token, GRID)
    pool = 'token' if has_class_token else 'avg'
    config = {'num_attention_heads': HEADS, 'global_pool': pool, 'architecture': 'vit_tiny'}
    weights = read(write(tmp_path, timm(vit), suffix, config))
    assert_params(weights, vit)
    model = weights.card.model
    assert (model['gelu'], model['layer_norm_eps'], model['num_heads']) == ('exact', 1e-6, HEADS)
    assert weights.kind == 'image ViT, timm' and weights.unused == ()
    assert error(features(weights, gelu='tanh'), image_features(vit, IMAGES)) < 1e-5


@pytest.mark.parametrize('prefix', ['vit.', ''])
@pytest.mark.parametrize('in_memory', [True, False])
def test_vits_of_hugging_face(prefix, in_memory, tmp_path, image_vit, image_features):
    vit, config = image_vit(True, GRID), {'num_attention_heads': HEADS, 'layer_norm_eps': 1e-6}
    config['hidden_act'], config['id2label'] = 'gelu_new', {str(i): f'class {i}' for i in range(7)}
    if in_memory:
        config['problem_type'] = 'multi_label_classification'
    arrays = hugging_face(vit, prefix, in_memory)
    arrays[f'{prefix}pooler.dense.weight'] = np.ones((WIDTH, WIDTH), np.float32)
    weights = read(write(tmp_path, arrays, '.safetensors', config))
    assert_params(weights, vit)
    assert weights.kind == 'image ViT, Hugging Face'
    assert weights.unused == (f'{prefix}pooler.*',)
    assert weights.card.label_names == tuple(f'class {i}' for i in range(7))
    assert weights.card.is_multi_label == in_memory
    assert (weights.card.model['gelu'], weights.card.model['layer_norm_eps']) == ('tanh', 1e-6)
    assert error(features(weights), image_features(vit, IMAGES)) < 1e-5


@pytest.fixture
def transformers_vit():
    """A random ViT of transformers, in which another GELU or epsilon would change the results."""
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    transformers = pytest.importorskip('transformers', reason='needs transformers')

    def make(images=IMAGES, **keywords):
        torch.manual_seed(0)
        sizes = {'num_hidden_layers': 2, 'intermediate_size': 24, 'image_size': SIDE}
        config = transformers.ViTConfig(**sizes, patch_size=4, num_labels=CLASSES, **keywords)
        model = transformers.ViTForImageClassification(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.3)
            images = torch.from_numpy(images.astype(np.float32))
            logits = model(images.permute(0, 3, 1, 2)).logits.numpy()
        return model, logits

    return make


def logits_error(weights, expected, images=IMAGES):
    model = create_model(**weights.card.model)
    return error(model.apply({'params': weights.params}, images[:, None]).logits, expected)


@pytest.mark.parametrize(
    ('processor', 'to_theirs'),
    [
        ({'image_mean': [0.0, 0.0, 0.0], 'image_std': [1.0, 1.0, 1.0]}, lambda u: u / 255),
        ({'image_mean': [0.1, 0.2, 0.3], 'image_std': [0.4, 0.5, 0.6]}, None),
        (
            {'do_normalize': False, 'image_mean': [0.5] * 3, 'image_std': [0.5] * 3},
            lambda u: u / 255,
        ),
        ({'do_normalize': False, 'rescale_factor': 1 / 127.5}, lambda u: u / 127.5),
        (
            {'do_rescale': False, 'image_mean': [100, 110, 120], 'image_std': [50, 60, 70]},
            lambda u: (u - np.array([100, 110, 120])) / np.array([50, 60, 70]),
        ),
    ],
)
def test_logits_are_those_of_transformers(processor, to_theirs, tmp_path, transformers_vit):
    bytes_ = np.random.default_rng(0).integers(0, 256, IMAGES.shape).astype(np.float64)
    theirs = to_theirs(bytes_) if to_theirs else (bytes_ / 255 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
    model, logits = transformers_vit(theirs, hidden_size=16, num_attention_heads=2)
    model.save_pretrained(tmp_path)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(processor))
    weights = read(tmp_path / 'model.safetensors')
    keywords = weights.card.model
    assert (keywords['gelu'], keywords['layer_norm_eps']) == ('exact', 1e-12)
    assert weights.card.label_names == tuple(f'LABEL_{i}' for i in range(CLASSES))
    assert weights.card.preprocessing.value_range == (-1, 1) and not weights.notes
    assert logits_error(weights, logits, bytes_ / 127.5 - 1) < 1e-5


@pytest.mark.parametrize(
    'wrong', [{'rescale_factor': 0}, {'image_std': [1, 2]}, {'image_mean': 'x'}]
)
def test_colours_that_are_no_numbers(wrong, tmp_path, image_vit):
    path = write(tmp_path, hugging_face(image_vit(True, GRID)), '.safetensors')
    processor = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3, 'num_attention_heads': HEADS}
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(processor | wrong))
    with pytest.raises(UserError, match=f'{next(iter(wrong)).removeprefix("image_")}='):
        read(path)


def test_logits_without_config_and_with_the_names_of_memory(tmp_path, transformers_vit):
    model, logits = transformers_vit(hidden_size=192, num_attention_heads=3)
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    weights = read(write(tmp_path, arrays, '.safetensors'))
    assert weights.card.model['num_heads'] == 3
    told, colours = weights.notes
    assert 'num_attention_heads (3 assumed), hidden_act (exact GELU assumed)' in told
    assert '(0.5, 0.5, 0.5) and (0.5, 0.5, 0.5) assumed' in colours
    assert weights.card.model['layer_norm_eps'] == 1e-12
    assert weights.card.preprocessing.value_range == (-1, 1)
    assert logits_error(weights, logits) < 1e-5


def test_logits_of_timm_are_those_of_the_same_vit_with_its_epsilon(tmp_path, transformers_vit):
    model, logits = transformers_vit(hidden_size=16, num_attention_heads=2, layer_norm_eps=1e-6)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    arrays = {
        'cls_token': state['vit.embeddings.cls_token'],
        'pos_embed': state['vit.embeddings.position_embeddings'],
    }
    modules = {
        'patch_embed.proj': 'embeddings.patch_embeddings.projection',
        'norm': 'layernorm',
    }
    for i in range(2):
        modules[f'blocks.{i}.norm1'] = f'layers.{i}.layernorm_before'
        modules[f'blocks.{i}.norm2'] = f'layers.{i}.layernorm_after'
        modules[f'blocks.{i}.attn.proj'] = f'layers.{i}.attention.o_proj'
        modules[f'blocks.{i}.mlp.fc1'] = f'layers.{i}.mlp.fc1'
        modules[f'blocks.{i}.mlp.fc2'] = f'layers.{i}.mlp.fc2'
    for leaf in ('weight', 'bias'):
        arrays |= {f'{k}.{leaf}': state[f'vit.{v}.{leaf}'] for k, v in modules.items()}
        arrays[f'head.{leaf}'] = state[f'classifier.{leaf}']
        for i in range(2):
            parts = [state[f'vit.layers.{i}.attention.{x}_proj.{leaf}'] for x in 'qkv']
            arrays[f'blocks.{i}.attn.qkv.{leaf}'] = np.concatenate(parts)
    weights = read(write(tmp_path, arrays, '.safetensors', {'num_attention_heads': 2}))
    assert logits_error(weights, logits) < 1e-5


def test_colours_of_timm(tmp_path, image_vit, image_features):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    cfg = {'mean': mean.tolist(), 'std': std.tolist()}
    config = {'num_attention_heads': HEADS, 'architecture': 'vit_tiny', 'pretrained_cfg': cfg}
    vit = image_vit(True, GRID)
    path = write(tmp_path, timm(vit), '.safetensors', config)
    weights = read(path)
    assert weights.card.preprocessing.value_range == (-1, 1) and not weights.notes
    expected = image_features(vit, ((IMAGES + 1) / 2 - mean) / std)
    assert error(features(weights, gelu='tanh'), expected) < 1e-5
    told = read_weights(path, value_range=(0, 1))  # the configuration is wrong
    assert_params(told, vit)
    assert told.card.preprocessing.value_range == (0, 1)


PARTS = {
    'reg_token': 'register tokens',
    'dist_token': 'a distillation token',
    'blocks.{}.attn.q_norm.weight': 'LayerNorms of queries and keys',
    'fc_norm.weight': 'a LayerNorm after the mean over patches',
    'blocks.{}.mlp.w12.weight': 'SwiGLU',
    'blocks.{}.gamma_1': 'blocks of BEiT or EVA',
    'rope.periods': 'rotary positions',
}


def test_parts_of_other_models_have_a_line_each(tmp_path, image_vit):
    arrays = timm(image_vit(True, GRID)) | {
        name.format(block): np.ones(3, np.float32) for name in PARTS for block in range(2)
    }
    path = write(tmp_path, arrays, '.safetensors', {'num_attention_heads': HEADS})
    with pytest.raises(UserError) as caught:
        read(path)
    lines = str(caught.value).splitlines()[1:-1]
    for name, part in PARTS.items():
        (line,) = (line for line in lines if name.format(0) in line)
        assert f'it has {part}' in line
    assert len(lines) == len(PARTS)


def test_layer_scale_without_a_configuration(tmp_path, image_vit, image_features):
    # As in DINOv2's own files, which have timm's names.
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    vit, rng = image_vit(True, GRID), np.random.default_rng(0)
    arrays = timm(vit) | {'mask_token': np.zeros((1, WIDTH), np.float32)}
    for block in range(2):
        layers = ('MultiHeadDotProductAttention_0/out', 'MlpBlock_0/Dense_1')
        for name, layer in zip(('ls1', 'ls2'), layers, strict=True):
            scale = rng.normal(1, 0.5, WIDTH).astype(np.float32)
            arrays[f'blocks.{block}.{name}.gamma'] = scale
            for leaf in ('kernel', 'bias'):
                ours = f'Transformer/encoderblock_{block}/{layer}/{leaf}'
                vit[ours] = vit[ours] * scale
    path = write(tmp_path, arrays, '.safetensors', {'num_attention_heads': HEADS})
    weights = read(path)
    assert weights.kind == 'image ViT with LayerScale, timm'
    assert weights.unused == ('mask_token',)
    assert '(0.485, 0.456, 0.406) and (0.229, 0.224, 0.225) assumed' in str(weights.notes)
    expected = image_features(vit, ((IMAGES + 1) / 2 - mean) / std)
    assert error(features(weights, gelu='tanh'), expected) < 1e-5


def test_factors_that_do_not_fit_are_unknown(tmp_path, image_vit):
    arrays = timm(image_vit(True, GRID)) | {'blocks.1.ls1.gamma': np.ones(3, np.float32)}
    path = write(tmp_path, arrays, '.safetensors', {'num_attention_heads': HEADS})
    with pytest.raises(UserError, match=r'blocks.1.ls1.gamma: \(3,\), which this model does not'):
        read(path)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'global_pool': 'avg'}, "global_pool='avg' pools the patches, without the class token"),
        ({'hidden_act': 'relu'}, "hidden_act='relu'"),
        ({'model_type': 'beit'}, "model_type='beit' is no plain ViT"),
        ({'architecture': 'vit_pe_core_base_patch16_224'}, 'is no plain ViT of timm'),
        ({'architecture': 'vit_small_patch16_rope_ape_224'}, 'is no plain ViT of timm'),
        ({'architecture': 'cait_s24_224'}, 'is no plain ViT of timm'),
    ],
)
def test_configurations_of_other_models_are_refused(config, message, tmp_path, image_vit):
    config = {'num_attention_heads': HEADS, **config}
    path = write(tmp_path, timm(image_vit(True, GRID)), '.safetensors', config)
    with pytest.raises(UserError, match=message):
        read(path)


def test_layer_norm_before_the_blocks_asks_for_the_activation(tmp_path, image_vit):
    norm = {f'norm_pre.{leaf}': np.ones(WIDTH, np.float32) for leaf in ('weight', 'bias')}
    arrays = timm(image_vit(True, GRID)) | norm
    config = {'num_attention_heads': HEADS}
    with pytest.raises(UserError, match=r'no config.json tells its GELU: "hidden_act" is'):
        read(write(tmp_path, arrays, '.safetensors', config))
    told = read(write(tmp_path, arrays, '.safetensors', {**config, 'hidden_act': 'quick_gelu'}))
    assert told.card.model['pre_norm'] and told.card.model['gelu'] == 'quick' and told.has_head
    arrays['head.bias'] = np.zeros_like(arrays['head.bias'])  # then it projects to texts
    assert not read(write(tmp_path, arrays, '.safetensors')).has_head


# Facts about timm 1.0: heads, activation and epsilon.
ARCHITECTURES = {
    'vit_base_patch16_gap_224': (768, 16, 'gelu', 1e-6),
    'vit_base_patch16_224': (768, 12, 'gelu', 1e-6),
    'vit_medium_patch16_gap_256': (512, 8, 'gelu', 1e-6),
    'vit_huge_patch14_gap_224': (1280, 16, 'gelu', 1e-6),
    'deit3_huge_patch14_224': (1280, 16, 'gelu', 1e-6),
    'vit_so400m_patch14_siglip_384': (1152, 16, 'gelu', 1e-6),
    'vit_so400m_patch16_siglip_gap_512': (1152, 16, 'gelu_tanh', 1e-6),
    'vit_base_patch32_siglip_256': (768, 12, 'gelu_tanh', 1e-6),
    'vit_large_patch16_siglip_384': (1024, 16, 'gelu', 1e-6),
    'vit_large_patch16_siglip_512': (1024, 16, 'gelu_tanh', 1e-6),
    'vit_base_patch16_clip_quickgelu_224': (768, 12, 'quick_gelu', 1e-5),
    'vit_large_patch14_clip_336': (1024, 16, 'gelu', 1e-5),
}


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_architectures_of_timm_tell_what_the_file_does_not(architecture, tmp_path):
    width, *expected = ARCHITECTURES[architecture]
    (tmp_path / 'config.json').write_text(json.dumps({'architecture': architecture}))
    config = read_config(tmp_path / 'model.safetensors', width)
    fields = ('num_attention_heads', 'hidden_act', 'layer_norm_eps')
    assert [config[field] for field in fields] == expected
    arguments = {'num_heads': 4, 'act_layer': 'gelu_tanh'}
    config = {'architecture': architecture, 'model_args': arguments, 'layer_norm_eps': 0.1}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    config = read_config(tmp_path / 'model.safetensors', width)
    assert [config[field] for field in fields] == [4, 'gelu_tanh', 0.1]


def test_unknown_heads_ask_for_a_configuration(tmp_path, image_vit):
    path = write(tmp_path, timm(image_vit(True, GRID)), '.safetensors')
    with pytest.raises(UserError, match=r'width of 16: put a config.json .*num_attention_heads'):
        read(path)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(UserError, match=r'config.json cannot be read as JSON'):
        read(path)


def test_all_that_is_wrong_is_listed(tmp_path, image_vit):
    arrays = augreg(image_vit(True, GRID))
    del arrays['Transformer/encoderblock_1/LayerNorm_2/bias']
    del arrays['head/bias']
    arrays['Transformer/encoder_norm/scale'] = np.ones(5, np.float32)
    arrays['Transformer/encoderblock_0/Adapter/kernel'] = np.ones((2, 3), np.float32)
    with pytest.raises(UserError) as caught:
        read(write(tmp_path, arrays))
    lines = [line.strip() for line in str(caught.value).splitlines()[1:-1]]
    assert sorted(lines) == [
        'Transformer/encoder_norm/scale: (5,), needed (16,) (Transformer/encoder_norm/scale)',
        'Transformer/encoderblock_0/Adapter/kernel: (2, 3), unknown',
        'Transformer/encoderblock_1/LayerNorm_1/bias: missing, needed (16,)',
        'output_projection/bias: missing, needed (7,)',
    ]


def test_arrays_that_cannot_be_transformed_are_listed_with_the_rest(tmp_path, image_vit):
    arrays = timm(image_vit(True, GRID))
    arrays['blocks.1.attn.qkv.bias'] = np.ones(47, np.float32)
    arrays['blocks.1.norm2.weight'] = np.ones(4, np.float32)
    path = write(tmp_path, arrays, '.safetensors', {'num_attention_heads': HEADS})
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).count('blocks.1.attn.qkv.bias: (47,), needed (2, 8)') == 3
    assert 'blocks.1.norm2.weight: (4,), needed (16,)' in str(caught.value)


BROKEN = {
    'not square': (
        {TABLE: np.ones((1, 8, WIDTH), np.float32)},
        '7 places of patches, .* no square',
    ),
    'one axis': (
        {TABLE: np.ones(WIDTH, np.float32)},
        r'pos_embedding: \(16,\), needed \(1, places',
    ),
    'clips': (
        {'embedding/kernel': np.ones((2, 4, 4, 3, WIDTH), np.float32)},
        r'\(2, 4, 4, 3, 16\)',
    ),
    'colours': (
        {'embedding/kernel': np.ones((4, 4, 1, WIDTH), np.float32)},
        r'needed \(4, 4, 3, 16\)',
    ),
    'no table': ({TABLE: None}, 'pos_embedding: missing'),
    'no kernel': ({'embedding/kernel': None}, 'embedding/kernel: missing'),
}


@pytest.mark.parametrize('case', BROKEN)
def test_what_tells_the_sizes_must_be_there(case, tmp_path, image_vit):
    changes, message = BROKEN[case]
    vit = {k: v for k, v in (image_vit(True, GRID) | changes).items() if v is not None}
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, augreg(vit)))


def test_scanned_layers_must_be_as_many_in_all_arrays(tmp_path, image_vit):
    arrays = scanned(big_vision(image_vit(True, GRID)))
    name = 'params/Transformer/encoderblock/LayerNorm_0/scale'
    arrays[name] = arrays[name][:1]
    with pytest.raises(UserError, match=r'LayerNorm_0/scale: \(1, 16\), needed \(16,\)'):
        read(write(tmp_path, arrays))


def test_objects_are_not_unpickled(tmp_path, image_vit):
    arrays = augreg(image_vit(True, GRID)) | {'head/bias': np.array([{'a': 1}], object)}
    with pytest.raises(UserError, match=r'head/bias cannot be read .*pickled'):
        read(write(tmp_path, arrays))


def test_truncated_file(tmp_path, image_vit):
    path = write(tmp_path, augreg(image_vit(True, GRID)))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError):
        read(path)


def test_names_of_other_models_do_not_match(tmp_path):
    for name in (
        'SpatialTransformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel',
        'vivit.encoder.layer.0.attention.attention.query.weight',
        'layers.0.blocks.0.attn.qkv.weight',
        'model.layers.0.self_attn.q_proj.weight',
    ):
        assert not matches([name, 'head.weight'])
    path = tmp_path / 'other.npz'
    np.savez(path, weight=np.ones(3))
    with pytest.raises(UserError, match='is no image ViT: it holds weight'):
        read_image_vit(open_tensors(path), path)
