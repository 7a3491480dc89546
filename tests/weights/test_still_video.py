"""A ViViT that is inflated from an image ViT computes the same features for a still video."""

import flax.traverse_util
import jax
import numpy as np
import pytest

from vivit_jax.models.registry import create_model
from vivit_jax.weights.init_from import init_from
from vivit_jax.weights.load import read_weights

CLIP_SHAPE = (6, 16, 16)
BLOCK = 'Transformer/encoderblock_1'
ATTENTION = 'MultiHeadDotProductAttention'


@pytest.fixture(scope='module')
def hugging_face(tmp_path_factory):
    """A folder with a small ViT with random weights, images [b h w c], and its class tokens."""
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    transformers = pytest.importorskip('transformers', reason='needs transformers')
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        image_size=16,
        patch_size=4,
        num_labels=7,
        initializer_range=0.3,
    )
    model = transformers.ViTForImageClassification(config).eval()
    for parameter in model.parameters():  # biases are zero, tables small
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp('vit')
    model.save_pretrained(folder)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        hidden = model.vit(pixels).last_hidden_state
    return folder, images, hidden[:, 0].numpy()


@pytest.fixture(scope='module')
def timm(tmp_path_factory):
    """A file with a small timm ViT with random weights, images [b h w c], and its class tokens."""
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    timm = pytest.importorskip('timm', reason='needs timm', exc_type=(ImportError, RuntimeError))
    torch.manual_seed(0)
    model = timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=192, depth=2, num_heads=3, num_classes=7
    ).eval()
    path = tmp_path_factory.mktemp('timm') / 'vit.pth'
    torch.save(model.state_dict(), path)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    with torch.inference_mode():
        features = model.forward_features(torch.from_numpy(images).permute(0, 3, 1, 2))
    return path, images, features[:, 0].numpy()


def inflate(path, name, **keywords):
    """The model and the parameters of a ViViT with the sizes of an image ViT."""
    weights = read_weights(path)
    sizes = ('hidden_size', 'num_layers', 'num_heads', 'mlp_dim', 'gelu', 'layer_norm_eps')
    card = weights.card.model
    patch = card['tubelet_size'][1]
    model = create_model(
        name,
        num_classes=5,
        tubelet_size=(3, patch, patch),
        **{key: card[key] for key in sizes},
        **keywords,
    )
    rng = np.random.default_rng(1)
    clip = jax.ShapeDtypeStruct((1, *CLIP_SHAPE, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), clip)['params']
    fresh = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    params, _ = init_from(model, fresh, weights, clip_shape=CLIP_SHAPE, reinit=('head',))
    return model, params, weights


def features_of_still_video(model, params, images):
    clip = np.repeat(images[:, None], CLIP_SHAPE[0], axis=1)
    with jax.default_matmul_precision('highest'):
        return model.apply({'params': params}, clip).features


def assert_near(value, expected):
    assert np.linalg.norm(value - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize('library', ['hugging_face', 'timm'])
def test_frame_average_sees_what_the_library_does(library, request):
    path, images, expected = request.getfixturevalue(library)
    model, params, _ = inflate(path, 'vivit_fe', temporal_num_layers=0)
    assert_near(features_of_still_video(model, params, images), expected)


@pytest.mark.parametrize('name', ['vivit_joint', 'vivit_fsa'])
def test_models_without_class_token_see_what_the_vit_does(
    name, tmp_path, image_vit, image_features
):
    vit = image_vit(False, grid=(4, 4))
    rename = {'Transformer/posembed_input/pos_embedding': 'pos_embedding'}
    names = {name: rename.get(name, name).replace('output_projection', 'head') for name in vit}
    np.savez(tmp_path / 'vit.npz', **{f'params/{names[name]}': x for name, x in vit.items()})
    model, params, _ = inflate(tmp_path / 'vit.npz', name, pool='mean')
    images = np.random.default_rng(2).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    expected = image_features(vit, images)
    assert_near(features_of_still_video(model, params, images), expected)


@pytest.mark.parametrize(
    ('name', 'attention'),
    [('vivit_joint', '0'), ('vivit_fsa', 'space'), ('vivit_fdp', '0')],
)
def test_tensors_are_those_of_the_library(name, attention, hugging_face):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    transformers = pytest.importorskip('transformers', reason='needs transformers')
    folder, *_ = hugging_face
    theirs = transformers.ViTForImageClassification.from_pretrained(folder).vit
    layer = theirs.layers[1] if hasattr(theirs, 'layers') else theirs.encoder.layer[1]
    flat = flax.traverse_util.flatten_dict(inflate(folder, name)[1], sep='/')
    with torch.inference_mode():
        tokens = torch.randn(3, 32)
        expected = layer.layernorm_before(tokens).numpy()
        norm = [flat[f'{BLOCK}/LayerNorm_{attention}/{x}'] for x in ('scale', 'bias')]
        x = tokens.numpy()
        x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
        np.testing.assert_allclose(x * norm[0] + norm[1], expected, rtol=1e-4, atol=1e-5)

        # A whole attention layer depends on the order of the heads and of their channels.
        expected = layer.attention(tokens[None])
        expected = expected[0] if isinstance(expected, tuple) else expected
        block = f'{BLOCK}/{ATTENTION}_{attention}'
        q, k, v = (
            np.einsum('nd,dke->kne', tokens.numpy(), flat[f'{block}/{part}/kernel'])
            + flat[f'{block}/{part}/bias'][:, None]
            for part in ('query', 'key', 'value')
        )
        scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(8))
        mixed = scores / scores.sum(-1, keepdims=True) @ v
        mixed = np.einsum('kne,ked->nd', mixed, flat[f'{block}/out/kernel'])
        mixed += flat[f'{block}/out/bias']
        np.testing.assert_allclose(mixed, expected[0].numpy(), rtol=1e-4, atol=1e-5)

    table = theirs.embeddings.position_embeddings.detach().numpy()[:, 1:]
    rows = flat['Transformer/posembed_input/pos_embedding']
    rows = rows[:, rows.shape[1] % 16 :].reshape(2, 16, 32)  # the same at both times
    np.testing.assert_array_equal(rows, np.repeat(table, 2, axis=0))
