"""A small image ViT with random weights, in NumPy, and its conversion."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.models.registry import create_model
from vivit_jax.weights.inflation import init_from_image_vit

WIDTH, LAYERS, HEADS, MLP_DIM, PATCH = 16, 2, 2, 24, 4
GRID = (2, 3)
CLIP_SHAPE = (6, 8, 12)
TABLE = 'Transformer/posembed_input/pos_embedding'
ATTENTION = 'MultiHeadDotProductAttention'


def _image_vit(has_class_token, grid=GRID, d=WIDTH, layers=LAYERS, p=PATCH):
    """Random parameters of a ViT by path."""
    m, k = MLP_DIM, HEADS
    shapes = {'embedding/kernel': (p, p, 3, d), 'embedding/bias': (d,)}
    shapes['output_projection/kernel'], shapes['output_projection/bias'] = (d, 7), (7,)
    if has_class_token:
        shapes['cls'] = (1, 1, d)
    shapes[TABLE] = (1, grid[0] * grid[1] + has_class_token, d)
    norms = ['Transformer/encoder_norm']
    for layer in range(layers):
        block = f'Transformer/encoderblock_{layer}'
        norms += [f'{block}/LayerNorm_0', f'{block}/LayerNorm_1']
        for name in ('query', 'key', 'value'):
            shapes[f'{block}/{ATTENTION}_0/{name}/kernel'] = (d, k, d // k)
            shapes[f'{block}/{ATTENTION}_0/{name}/bias'] = (k, d // k)
        shapes[f'{block}/{ATTENTION}_0/out/kernel'] = (k, d // k, d)
        shapes[f'{block}/{ATTENTION}_0/out/bias'] = (d,)
        for name, (rows, columns) in (('Dense_0', (d, m)), ('Dense_1', (m, d))):
            shapes[f'{block}/MlpBlock_0/{name}/kernel'] = (rows, columns)
            shapes[f'{block}/MlpBlock_0/{name}/bias'] = (columns,)
    shapes |= {f'{norm}/{name}': (d,) for norm in norms for name in ('scale', 'bias')}
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(name.endswith('scale'), 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def _image_features(vit, images):
    """Runs the ViT in float64: images [b h w c] to class tokens, or means of tokens, [b d]."""
    vit = {name: value.astype(np.float64) for name, value in vit.items()}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * vit[f'{name}/scale'] + vit[f'{name}/bias']

    def dense(x, name, rule='bnd,de->bne'):
        return np.einsum(rule, x, vit[f'{name}/kernel']) + vit[f'{name}/bias']

    b, h, w, c = images.shape
    kernel = vit['embedding/kernel']
    p, d = kernel.shape[0], kernel.shape[-1]
    x = images.astype(np.float64).reshape(b, h // p, p, w // p, p, c)
    x = np.einsum('biujvc,uvcd->bijd', x, kernel).reshape(b, -1, d) + vit['embedding/bias']
    if 'cls' in vit:
        x = np.concatenate([np.broadcast_to(vit['cls'], (b, 1, d)), x], 1)
    x = x + vit[TABLE]
    for layer in range(LAYERS):
        block = f'Transformer/encoderblock_{layer}'
        y, attention = norm(x, f'{block}/LayerNorm_0'), f'{block}/{ATTENTION}_0'
        q, k, v = (dense(y, f'{attention}/{n}', 'bnd,dke->bnke') for n in ('query', 'key', 'value'))
        weights = np.exp(np.einsum('bqke,bnke->bkqn', q, k) / np.sqrt(q.shape[-1]))
        weights /= weights.sum(-1, keepdims=True)
        y = np.einsum('bkqn,bnke->bqke', weights, v)
        x = x + dense(y, f'{attention}/out', 'bnke,ked->bnd')
        y = dense(norm(x, f'{block}/LayerNorm_1'), f'{block}/MlpBlock_0/Dense_0')
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + dense(y, f'{block}/MlpBlock_0/Dense_1')
    x = norm(x, 'Transformer/encoder_norm')
    return x[:, 0] if 'cls' in vit else x.mean(1)


def _model(name, **keywords):
    """A ViViT of the same sizes."""
    sizes = {'hidden_size': WIDTH, 'num_layers': LAYERS, 'num_heads': HEADS, 'mlp_dim': MLP_DIM}
    length = 1 if keywords.get('tokenizer') == 'uniform_frames' else 3
    defaults = {**sizes, 'num_classes': 5, 'tubelet_size': (length, PATCH, PATCH)}
    if name == 'vivit_fe':
        defaults['temporal_num_layers'] = 1
    return create_model(name, **{**defaults, **keywords})


def _fresh(model, clip_shape=CLIP_SHAPE):
    """Random parameters, none of them zero."""
    clip = jax.ShapeDtypeStruct((1, *clip_shape, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), clip)['params']
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype), shapes)


def _start(model, vit, clip_shape=CLIP_SHAPE, image_grid=GRID, **choices):
    """The fresh and the initialized parameters by path, and the report."""
    fresh = _fresh(model, clip_shape)
    params, report = init_from_image_vit(
        model,
        fresh,
        flax.traverse_util.unflatten_dict(vit, sep='/'),
        clip_shape=clip_shape,
        image_grid=image_grid,
        **choices,
    )
    flat = [flax.traverse_util.flatten_dict(x, sep='/') for x in (fresh, params)]
    return *flat, report


@pytest.fixture(autouse=True)
def exact_matmuls():
    """Accelerators multiply float32 coarsely by default."""
    with jax.default_matmul_precision('highest'):
        yield


@pytest.fixture
def image_vit():
    return _image_vit


@pytest.fixture
def image_features():
    return _image_features


@pytest.fixture
def video_model():
    return _model


@pytest.fixture
def fresh_params():
    return _fresh


@pytest.fixture
def start():
    return _start
