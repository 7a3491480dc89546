"""Small random ViTs of transformers and timm compute the same features here, from uint8 pixels."""

import functools
import json

import jax
import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.models.registry import create_model
from vivit_jax.weights.image_vit_config import read_config
from vivit_jax.weights.init_from import init_from
from vivit_jax.weights.load import create_weights_model, read_weights

SIDE, SIZES = 16, ('hidden_size', 'num_layers', 'num_heads', 'mlp_dim', 'pool', 'pre_norm')
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PIXELS = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3))
# Positions shrink along the height and grow along the width.
OTHER_PIXELS = np.random.default_rng(1).integers(0, 256, (2, SIDE - 4, SIDE + 8, 3))


def still_video_features(weights, images):
    """The features of a still video by the inflated ViT, of images [b h w c] in [-1, 1]."""
    card = weights.card.model
    patch = card['tubelet_size'][1]
    video_model = create_model(
        'vivit_fe',
        num_classes=5,
        temporal_num_layers=0,  # the mean over frames
        tubelet_size=(3, patch, patch),
        **{key: card[key] for key in (*SIZES, 'gelu', 'layer_norm_eps')},
    )
    shape = (6, *images.shape[1:3])
    clip = jax.ShapeDtypeStruct((1, *shape, 3), np.float32)
    fresh = jax.eval_shape(video_model.init, jax.random.key(0), clip)['params']
    fresh = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), fresh)
    params, _ = init_from(video_model, fresh, weights, clip_shape=shape, reinit=('head',))
    with jax.default_matmul_precision('highest'):
        return video_model.apply({'params': params}, np.repeat(images[:, None], 6, axis=1)).features


def image_features(weights, images):
    model, variables = create_weights_model(weights)
    with jax.default_matmul_precision('highest'):
        return model.apply(variables, images[:, None]).features


def assert_near(found, expected):
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def assert_sees_the_same(path, expected, of_other_size):
    weights = read_weights(path)
    images, others = ((x / 127.5 - 1).astype(np.float32) for x in (PIXELS, OTHER_PIXELS))
    assert_near(image_features(weights, images), expected.numpy())
    assert_near(still_video_features(weights, images), expected.numpy())
    assert_near(still_video_features(weights, others), of_other_size.numpy())
    return weights


def randomize(model):
    """Random parameters, in which every norm, bias and LayerScale has an effect."""
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def normalize(images):
    """Images [b h w c] in [0, 1] as PyTorch models take them."""
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    return torch.from_numpy(((images - MEAN) / STD).astype(np.float32)).permute(0, 3, 1, 2)


ENCODER = {
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'intermediate_size': 48,
    'image_size': SIDE,
    'patch_size': 4,
}
TEXTS = {**ENCODER, 'vocab_size': 9, 'eos_token_id': 1, 'bos_token_id': 2, 'pad_token_id': 3}
# For each model of transformers: its configuration, given the library, and what is left out.
MODELS = {
    'Dinov2Model': (
        lambda library: library.Dinov2Config(**ENCODER, mlp_ratio=2),
        ('embeddings.mask_token',),
    ),
    'Dinov2ForImageClassification': (
        lambda library: library.Dinov2Config(**ENCODER, mlp_ratio=2, num_labels=3),
        ('dinov2.embeddings.mask_token', 'classifier'),
    ),
    'CLIPVisionModel': (lambda library: library.CLIPVisionConfig(**ENCODER), ()),
    'CLIPModel': (
        lambda library: library.CLIPConfig(
            text_config=TEXTS, vision_config={**ENCODER, 'hidden_act': 'gelu'}
        ),
        ('logit_scale', 'text_model', 'text_projection', 'visual_projection'),
    ),
    'SiglipVisionModel': (lambda library: library.SiglipVisionConfig(**ENCODER), ('head',)),
    'SiglipModel': (
        lambda library: library.SiglipConfig(text_config=TEXTS, vision_config=ENCODER),
        ('logit_bias', 'logit_scale', 'text_model', 'vision_model.head'),
    ),
    'ViTMSNModel': (lambda library: library.ViTMSNConfig(**ENCODER), ()),
    'IJepaModel': (lambda library: library.IJepaConfig(**ENCODER, qkv_bias=False), ()),
    'ViTMAEModel': (lambda library: library.ViTMAEConfig(**ENCODER, mask_ratio=0.0), ()),
    'ViTMAEForPreTraining': (
        lambda library: library.ViTMAEConfig(
            **ENCODER, mask_ratio=0.0, decoder_hidden_size=32, decoder_num_attention_heads=4
        ),
        ('decoder',),
    ),
}


@pytest.mark.parametrize('name', MODELS)
def test_vits_of_transformers(name, tmp_path):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    transformers = pytest.importorskip('transformers', reason='needs transformers')
    make_config, unused = MODELS[name]
    model = randomize(getattr(transformers, name)(make_config(transformers)))
    model.save_pretrained(tmp_path)
    processor = {'image_mean': MEAN, 'image_std': STD, 'rescale_factor': 1 / 255}
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(processor))
    encoder = model
    for attribute in ('dinov2', 'vision_model', 'vit'):
        encoder = getattr(encoder, attribute, encoder)
    # DINOv2 always resizes its positions.
    resizes = {} if name.startswith('Dinov2') else {'interpolate_pos_encoding': True}
    expected = []
    for images in (PIXELS, OTHER_PIXELS):
        with torch.inference_mode():
            output = encoder(normalize(images / 255), **resizes)
        if name.startswith(('Siglip', 'IJepa')):  # without a class token
            expected.append(output.last_hidden_state.mean(1))
        else:
            expected.append(output.get('pooler_output', output.last_hidden_state[:, 0]))
    weights = assert_sees_the_same(tmp_path, *expected)
    assert not weights.has_head and not weights.notes
    modules = {name for name in unused if any(x.startswith(name) for x in weights.unused)}
    assert modules == set(unused)
    assert all(x.startswith(tuple(unused)) for x in weights.unused)


@pytest.mark.parametrize('name', ['ViT', 'Dinov2', 'CLIPVision', 'SiglipVision', 'ViTMAE'])
def test_fields_that_a_configuration_leaves_out_are_those_of_the_library(name, tmp_path):
    transformers = pytest.importorskip('transformers', reason='needs transformers')
    make_config = getattr(transformers, f'{name}Config')
    sizes = {'hidden_size': 24, 'num_hidden_layers': 1, 'intermediate_size': 8, 'image_size': 8}
    model = getattr(transformers, f'{name}Model')(make_config(**sizes, patch_size=4))
    model.save_pretrained(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': model.config.model_type}))
    found, defaults = read_weights(tmp_path).card.model, make_config()
    assert found['num_heads'] == defaults.num_attention_heads
    assert found['layer_norm_eps'] == defaults.layer_norm_eps
    gelus = {'gelu': 'exact', 'gelu_pytorch_tanh': 'tanh', 'quick_gelu': 'quick'}
    assert found['gelu'] == gelus[defaults.hidden_act]


SMALL = {'hidden_size': 8, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'image_size': 8}
# For each model that computes something else: its configuration, and a line for each difference.
OTHERS = {
    'Dinov2WithRegistersModel': (
        lambda library: library.Dinov2WithRegistersConfig(**SMALL, patch_size=4),
        ('it has register tokens', "model_type='dinov2_with_registers'"),
    ),
    'DINOv3ViTModel': (
        lambda library: library.DINOv3ViTConfig(**SMALL, patch_size=4, intermediate_size=8),
        ('it has register tokens', 'it has no position table, as DINOv3', "'dinov3_vit'"),
    ),
    'Dinov2Model': (
        lambda library: library.Dinov2Config(**SMALL, patch_size=4, use_swiglu_ffn=True),
        ('it has SwiGLU',),
    ),
    'DeiTModel': (
        lambda library: library.DeiTConfig(**SMALL, patch_size=4, intermediate_size=8),
        ('it has a distillation token',),
    ),
    'Siglip2VisionModel': (
        lambda library: library.Siglip2VisionConfig(**SMALL, patch_size=4, intermediate_size=8),
        ('it embeds flat patches (NaFlex)', "model_type='siglip2_vision_model'"),
    ),
    'BeitModel': (
        lambda library: library.BeitConfig(**SMALL, patch_size=4, intermediate_size=8),
        ('it has blocks of BEiT or EVA', 'it has no position table', "model_type='beit'"),
    ),
}


@pytest.mark.parametrize('name', OTHERS)
def test_other_models_are_refused_in_a_line_for_each_reason(name, tmp_path):
    transformers = pytest.importorskip('transformers', reason='needs transformers')
    make_config, reasons = OTHERS[name]
    getattr(transformers, name)(make_config(transformers)).save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path)
    lines = str(caught.value).splitlines()[1:-1]
    assert len(lines) == len(reasons)
    for line, reason in zip(lines, reasons, strict=True):
        assert reason in line


def test_real_weights_of_dinov2(shared):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    transformers = pytest.importorskip('transformers', reason='needs transformers')
    folder = shared / 'weights/dinov2_small'
    theirs = transformers.Dinov2Model.from_pretrained(folder, dtype=torch.float32).eval()
    weights = read_weights(folder)
    assert weights.grid == (1, 37, 37) and not weights.notes
    assert weights.card.preprocessing.clip_shape == (1, 518, 518)
    for side, features in ((518, image_features), (224, still_video_features)):
        image = np.random.default_rng(0).uniform(0, 1, (1, side, side, 3))
        with torch.inference_mode():
            expected = theirs(normalize(image)).pooler_output.numpy()
        assert_near(features(weights, (2 * image - 1).astype(np.float32)), expected)


# For each kind of ViT in timm: its keywords, and the fields of its config.json.
NO_POSITION = {'no_embed_class': True, 'init_values': 0.1}
KINDS = {
    'MAE': ({}, {'architecture': 'vit_tiny_patch16_224'}),
    'DINOv2': ({'init_values': 0.1}, {'architecture': 'vit_small_patch14_dinov2'}),
    'DeiT III': (NO_POSITION, {'architecture': 'deit3_small_patch16_224'}),
    'CLIP of OpenAI': (
        {'pre_norm': True, 'norm_eps': 1e-5, 'act_layer': 'quick_gelu'},
        {'architecture': 'vit_base_patch16_clip_quickgelu_224'},
    ),
    'CLIP of OpenAI, tagged': (
        {'pre_norm': True, 'norm_eps': 1e-5, 'act_layer': 'quick_gelu'},
        {'architecture': 'vit_base_patch16_clip_224', 'tag': 'openai'},
    ),
    'CLIP': (
        {'pre_norm': True, 'norm_eps': 1e-5},
        {'architecture': 'vit_base_patch16_clip_224', 'tag': 'laion2b'},
    ),
    'SigLIP': (
        {'class_token': False, 'global_pool': 'map', 'num_classes': 0},
        {'architecture': 'vit_base_patch16_siglip_224', 'global_pool': 'map'},
    ),
    'SigLIP 2': (
        {
            'class_token': False,
            'global_pool': 'avg',
            'fc_norm': False,
            'num_classes': 0,
            'act_layer': 'gelu_tanh',
        },
        {'architecture': 'vit_so400m_patch16_siglip_gap_256', 'global_pool': 'avg'},
    ),
}


@pytest.mark.parametrize('kind', KINDS)
def test_vits_of_timm(kind, tmp_path):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    timm = pytest.importorskip('timm', reason='needs timm', exc_type=(ImportError, RuntimeError))
    keywords, config = KINDS[kind]
    keywords = {'num_classes': 3, 'patch_size': 4, 'img_size': SIDE, **keywords}
    keywords['dynamic_img_size'] = True
    if 'norm_eps' in keywords:
        norm = functools.partial(torch.nn.LayerNorm, eps=keywords.pop('norm_eps'))
        keywords['norm_layer'] = norm
    width, heads = (32, 16) if 'so400m' in config['architecture'] else (128, 2)
    model = timm.models.VisionTransformer(
        embed_dim=width, depth=2, num_heads=heads, mlp_ratio=0.5, **keywords
    )
    torch.save(randomize(model).state_dict(), tmp_path / 'vit.pth')
    cfg = {'mean': MEAN, 'std': STD, 'input_size': [3, SIDE, SIDE], 'tag': config.pop('tag', '')}
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'pretrained_cfg': cfg}))
    expected = []
    for images in (PIXELS, OTHER_PIXELS):
        with torch.inference_mode():
            tokens = model.forward_features(normalize(images / 255))
        expected.append(tokens[:, 0] if model.has_class_token else tokens.mean(1))
    weights = assert_sees_the_same(tmp_path, *expected)
    assert not weights.notes and weights.has_head == (keywords['num_classes'] > 0)


def is_plain(model):
    """Whether a ViT of timm has no part that this package lacks."""
    block = model.blocks[0]
    is_gelu = 'GELU' in type(getattr(getattr(block, 'mlp', None), 'act', None)).__name__
    has_extras = model.num_reg_tokens or 'Identity' not in type(model.fc_norm).__name__
    return is_gelu and type(block).__name__ == 'Block' and not has_extras


def test_what_the_names_of_timm_tell(tmp_path):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    timm = pytest.importorskip('timm', reason='needs timm', exc_type=(ImportError, RuntimeError))
    gelus = {'GELU': 'gelu', 'GELUTanh': 'gelu_tanh', 'QuickGELU': 'quick_gelu'}
    seen = set()
    for name in timm.list_models(module='vision_transformer') + timm.list_models(module='deit'):
        with torch.device('meta'):
            model = timm.create_model(name, depth=1)
        if not name.startswith(('vit', 'deit')) or not is_plain(model):
            continue
        block = model.blocks[0]
        told = gelus[type(block.mlp.act).__name__]
        for tagged in [name, *timm.list_pretrained(f'{name}.*')]:
            cfg = timm.models.get_pretrained_cfg(tagged)
            config = {'architecture': name, 'pretrained_cfg': {'tag': cfg.tag or ''}}
            (tmp_path / 'config.json').write_text(json.dumps(config))
            found = read_config(tmp_path / 'vit.pth', model.embed_dim)
            is_quick = 'natively QuickGELU' in str(cfg.notes)
            expected = block.attn.num_heads, 'quick_gelu' if is_quick else told, block.norm1.eps
            fields = ('num_attention_heads', 'hidden_act', 'layer_norm_eps')
            assert tuple(found[field] for field in fields) == expected, tagged
            seen.add(tagged)
    assert len(seen) > 200
