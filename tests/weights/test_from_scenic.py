"""Train states of Scenic, packed here byte by byte, and by Flax."""

import subprocess
import sys
from pathlib import Path

import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.models.registry import create_model
from vivit_jax.weights.from_scenic import read_scenic
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.tensor_files import file_format

WIDTH, HEADS, MLP_DIM, PATCH = 16, 2, 24, 56  # four patches along 224 pixels
ATTENTION = 'MultiHeadDotProductAttention'
TABLE = 'posembed_input/pos_embedding'


def encoder(name, places, layers, attentions=('0',), norm='LayerNorm_1', mlp='MlpBlock_0'):
    """Shapes of the parameters of an encoder."""
    d, k, m = WIDTH, HEADS, MLP_DIM
    shapes = {f'{name}/{TABLE}': (1, places, d)}
    norms = [f'{name}/encoder_norm']
    for layer in range(layers):
        block = f'{name}/encoderblock_{layer}'
        norms.append(f'{block}/{norm}')
        for axis in attentions:
            norms.append(f'{block}/LayerNorm_{axis}')
            for part in ('query', 'key', 'value'):
                shapes[f'{block}/{ATTENTION}_{axis}/{part}/kernel'] = (d, k, d // k)
                shapes[f'{block}/{ATTENTION}_{axis}/{part}/bias'] = (k, d // k)
            shapes[f'{block}/{ATTENTION}_{axis}/out/kernel'] = (k, d // k, d)
            shapes[f'{block}/{ATTENTION}_{axis}/out/bias'] = (d,)
        shapes[f'{block}/{mlp}/Dense_0/kernel'] = (d, m)
        shapes[f'{block}/{mlp}/Dense_0/bias'] = (m,)
        shapes[f'{block}/{mlp}/Dense_1/kernel'] = (m, d)
        shapes[f'{block}/{mlp}/Dense_1/bias'] = (d,)
    return shapes | {f'{norm}/{leaf}': (d,) for norm in norms for leaf in ('scale', 'bias')}


def around(kernel=(2, PATCH, PATCH), classes=5):
    """Shapes outside the encoders."""
    return {
        'embedding/kernel': (*kernel, 3, WIDTH),
        'embedding/bias': (WIDTH,),
        'output_projection/kernel': (WIDTH, classes),
        'output_projection/bias': (classes,),
    }


TOKEN = (1, 1, WIDTH)
JOINT = {**around(), **encoder('Transformer', 48, 2)}
SPATIAL = {**around(), **encoder('SpatialTransformer', 16, 2)}
MODELS = {  # shapes, and the names that distinguish the models
    'joint': (
        JOINT | {'cls': TOKEN, f'Transformer/{TABLE}': (1, 49, WIDTH)},
        {'name': 'vivit_joint', 'pool': 'cls'},
    ),
    'frames': (
        {**around((PATCH, PATCH)), **encoder('Transformer', 49, 2), 'cls': TOKEN},
        {
            'name': 'vivit_joint',
            'pool': 'cls',
            'tokenizer': 'uniform_frames',
            'num_sampled_frames': 3,
            'tubelet_size': (1, PATCH, PATCH),
        },
    ),
    'fe': (
        {
            **around(),
            **encoder('SpatialTransformer', 17, 2),
            **encoder('TemporalTransformer', 4, 3),
            'cls_SpatialTransformer': TOKEN,
            'cls_TemporalTransformer': TOKEN,
        },
        {'name': 'vivit_fe', 'pool': 'cls', 'temporal_num_layers': 3},
    ),
    'fe of means': (
        SPATIAL | encoder('TemporalTransformer', 3, 1),
        {'name': 'vivit_fe', 'pool': 'mean', 'temporal_num_layers': 1},
    ),
    'fsa': (
        around()
        | encoder('Transformer', 48, 2, ('space', 'time'), norm='LayerNorm_mlp', mlp='MlpBlock'),
        {'name': 'vivit_fsa', 'pool': 'mean'},
    ),
    'fdp': (JOINT, {'name': 'vivit_fdp', 'pool': 'mean'}),
}


def arrays(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def packed(tree):
    """The bytes of a tree, arrays as Flax documents them: shape, type and bytes in a type of 1."""

    def extension(x):
        code = 3 if isinstance(x, np.generic) else 1
        x = np.asarray(x)
        content = msgpack.packb((x.shape, x.dtype.name, x.tobytes()), use_bin_type=True)
        return msgpack.ExtType(code, content)

    return msgpack.packb(tree, default=extension, strict_types=True)


def nested(flat):
    return flax.traverse_util.unflatten_dict(flat, sep='/')


def old_state(params):
    """A train state of Flax before 0.6, which still had optimizers."""
    momenta = {'step': 12, 'param_states': {'x': {'momentum': np.full(7, np.nan, np.float32)}}}
    return {
        'accum_train_time': 1.5,
        'global_step': 12,
        'model_state': {},
        'optimizer': {'state': momenta, 'target': nested(params)},
        'rng': np.zeros(2, np.uint32),
    }


def new_state(params):
    return {
        'global_step': np.int32(12),
        'opt_state': {'0': {'trace': {'x': np.ones(7, np.float32)}}, '1': {}},
        'params': nested(params),
        'model_state': {},
        'rng': np.zeros(2, np.uint32),
    }


def wrapped(params):
    return old_state({f'params/{name}': value for name, value in params.items()})


def twice_wrapped(params):
    return new_state({f'params/{name}': value for name, value in params.items()})


def write(folder, state, name='checkpoint_12'):
    path = folder / name
    path.write_bytes(state if isinstance(state, bytes) else packed(state))
    return path


def flat_params(weights):
    return flax.traverse_util.flatten_dict(weights.params, sep='/')


def assert_params(weights, expected):
    found = flat_params(weights)
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert found[name].dtype == np.float32, name
        np.testing.assert_array_equal(found[name], value, name)


def assert_runs(weights):
    """Checks that the parameters have the names and shapes of the model."""
    model = create_model(**weights.card.model)
    shape = (1, *weights.card.preprocessing.clip_shape, 3)
    clip = jax.ShapeDtypeStruct(shape, jnp.float32)
    fresh = jax.eval_shape(model.init, jax.random.key(0), clip)['params']
    fresh = flax.traverse_util.flatten_dict(fresh, sep='/')
    assert {k: x.shape for k, x in fresh.items()} == {
        k: x.shape for k, x in flat_params(weights).items()
    }


@pytest.mark.parametrize('generation', [old_state, new_state, wrapped, twice_wrapped])
@pytest.mark.parametrize('kind', MODELS)
def test_models_and_generations(kind, generation, tmp_path):
    shapes, told = MODELS[kind]
    params = arrays(shapes)
    path = write(tmp_path, generation(params))
    assert file_format(path) == 'msgpack'
    weights = read_scenic(path)
    assert_params(weights, params)
    expected = {
        'hidden_size': WIDTH,
        'num_layers': 2,
        'num_heads': HEADS,
        'mlp_dim': MLP_DIM,
        'tubelet_size': (2, PATCH, PATCH),
        'tokenizer': 'tubelet',
        'num_classes': 5,
        **told,
    }
    assert weights.card.model == expected
    assert weights.grid == (3, 4, 4) and weights.step == 12 and weights.has_head
    assert weights.card.label_names == tuple('01234')
    spec = weights.card.preprocessing
    frames = 32 if kind == 'frames' else 6
    assert (spec.clip_shape, spec.short_side, spec.frame_stride) == ((frames, 224, 224), 256, 2)
    assert_runs(weights)


def test_file_of_flax(tmp_path):
    params = arrays(MODELS['fe'][0])
    path = tmp_path / 'checkpoint'
    path.write_bytes(flax.serialization.to_bytes(old_state(params)))
    assert_params(read_scenic(path), params)


def test_arrays_that_flax_packs_in_chunks(tmp_path, monkeypatch):
    params = arrays(MODELS['fdp'][0])
    monkeypatch.setattr(flax.serialization, 'MAX_CHUNK_SIZE', 500)
    content = flax.serialization.to_bytes(new_state(params))
    assert content.count(b'__msgpack_chunked_array__') > 10
    path = tmp_path / 'checkpoint'
    path.write_bytes(content)
    assert_params(read_scenic(path), params)


def test_other_types_become_float32(tmp_path):
    params = arrays(MODELS['fdp'][0])
    types = (np.float16, np.float64, ml_dtypes.bfloat16)
    stored = {name: x.astype(types[i % 3]) for i, (name, x) in enumerate(params.items())}
    weights = read_scenic(write(tmp_path, old_state(stored)))
    assert_params(weights, {name: x.astype(np.float32) for name, x in stored.items()})


def test_names_before_linen(tmp_path):
    params = arrays(MODELS['fe'][0])
    older = {
        name.replace(f'{ATTENTION}_0', f'{ATTENTION}_1')
        .replace('LayerNorm_1', 'LayerNorm_2')
        .replace('MlpBlock_0', 'MlpBlock_3'): value
        for name, value in params.items()
    }
    assert_params(read_scenic(write(tmp_path, wrapped(older))), params)


def test_two_heads_of_epic_kitchens(tmp_path):
    params = arrays(MODELS['fe'][0] | around(classes=397))
    weights = read_scenic(write(tmp_path, old_state(params)))
    kernel = params.pop('output_projection/kernel')
    bias = params.pop('output_projection/bias')
    params['output_projection_noun/kernel'] = kernel[:, :300]
    params['output_projection_noun/bias'] = bias[:300]
    params['output_projection_verb/kernel'] = kernel[:, 300:]
    params['output_projection_verb/bias'] = bias[300:]
    assert_params(weights, params)
    assert list(weights.card.model['num_classes'].items()) == [('verb', 97), ('noun', 300)]
    assert len(weights.card.label_names['verb']) == 97
    assert weights.card.preprocessing.frame_stride == 1
    assert_runs(weights)


def test_without_class_token_the_caller_tells_the_model(tmp_path):
    path = write(tmp_path, old_state(arrays(JOINT)))
    assert 'vivit_fdp assumed' in str(read_scenic(path).notes)
    weights = read_scenic(path, 'vivit_joint')
    assert weights.card.model['name'] == 'vivit_joint' and 'assumed' not in str(weights.notes)
    # The names in the file override the argument.
    fe = write(tmp_path, old_state(arrays(MODELS['fe'][0])))
    assert read_scenic(fe, 'vivit_joint').card.model['name'] == 'vivit_fe'


def test_frame_average(tmp_path):
    weights = read_scenic(write(tmp_path, old_state(arrays(SPATIAL))))
    assert weights.card.model['temporal_num_layers'] == 0
    assert weights.grid == (16, 4, 4) and '16 places along time assumed' in str(weights.notes)
    assert_runs(weights)


def test_image_vit(tmp_path):
    shapes = {**around((PATCH, PATCH)), **encoder('Transformer', 17, 1), 'cls': TOKEN}
    weights = read_scenic(write(tmp_path, old_state(arrays(shapes))))
    assert weights.is_image_model and weights.grid == (1, 4, 4)
    assert weights.card.preprocessing.num_frames == 1
    assert_runs(weights)


@pytest.mark.parametrize(
    ('patch', 'places', 'grid', 'is_told'),
    [
        (16, 3136, (16, 14, 14), True),  # the published ones
        (16, 784, (4, 14, 14), True),  # 224 pixels and fewer frames
        (16, 6400, (16, 20, 20), False),  # 32 frames
        (16, 50, (2, 5, 5), False),
    ],
)
def test_likeliest_grid(patch, places, grid, is_told, tmp_path):
    shapes = {**around((2, patch, patch)), **encoder('Transformer', places, 1)}
    path = write(tmp_path, old_state(arrays(shapes)))
    weights = read_scenic(path, 'vivit_joint')
    assert weights.grid == grid
    assert ('grid' not in str(weights.notes)) == is_told
    assert_runs(weights)


def test_frames_and_sides_of_a_clip_tell_the_grid(tmp_path):
    tubelets = {**around((2, 16, 16)), **encoder('Transformer', 800, 1)}
    path = write(tmp_path, old_state(arrays(tubelets)))
    with pytest.raises(UserError, match=r'2x20x20, 8x10x10, .* give the grid, as in --grid='):
        read_scenic(path, 'vivit_joint')
    for clip in ({'frames': 16}, {'crop_size': 160}, {'frames': 16, 'crop_size': 160}):
        weights = read_scenic(path, 'vivit_joint', **clip)
        assert weights.grid == (8, 10, 10) and '8x10x10 assumed' in str(weights.notes)
        assert weights.card.preprocessing.clip_shape == (16, 160, 160)
    with pytest.raises(UserError, match='give the grid'):
        read_scenic(path, 'vivit_joint', frames=32, crop_size=224)
    # Other sides do not change what a published model is: its positions are resized later.
    (tmp_path / 'published').mkdir()
    published = {**around((2, 16, 16)), **encoder('Transformer', 3136, 1)}
    path = write(tmp_path / 'published', old_state(arrays(published)))
    assert read_scenic(path, crop_size=112).grid == (16, 14, 14)
    frames = {**around((16, 16)), **encoder('Transformer', 65, 1), 'cls': TOKEN}
    weights = read_scenic(write(tmp_path, old_state(arrays(frames))), crop_size=64)
    assert weights.grid == (4, 4, 4) and not weights.is_image_model


@pytest.mark.parametrize(('crop_size', 'side'), [(None, 3), (64, 4)])
def test_positions_that_are_not_square_are_resized(tmp_path, crop_size, side):
    joint = {**around((2, 16, 16)), **encoder('Transformer', 25, 1), 'cls': TOKEN}
    params = arrays(joint)
    # A table that rises along time and height alone is the same on every grid of its height.
    time, height, _ = np.meshgrid(range(3), [0, 1], range(4), indexing='ij')
    params[f'Transformer/{TABLE}'][0, 1:] = (time + 10 * height).reshape(-1, 1)
    path = write(tmp_path, old_state(params))
    weights = read_scenic(path, grid=(3, 2, 4), crop_size=crop_size)
    assert weights.grid == (3, side, side) and f'3x2x4 to 3x{side}x{side}' in str(weights.notes)
    table = weights.params['Transformer']['posembed_input']['pos_embedding']
    np.testing.assert_array_equal(table[0, 0], params[f'Transformer/{TABLE}'][0, 0])
    places = table[0, 1:].reshape(3, side, side, -1)
    np.testing.assert_allclose(np.diff(places, axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(np.diff(places, axis=2), 0, atol=1e-5)
    np.testing.assert_allclose(places[0, [0, -1], 0, 0], [0, 10], atol=1e-5)
    assert_runs(weights)


@pytest.mark.parametrize(
    ('kind', 'grid', 'message'),
    [
        ('joint', (3, 4, 5), 'does not have 48 places in space and time'),
        ('fe', (4, 4, 5), 'does not have 16 places in space'),
        ('fe', (4, 4, 4), 'does not have 3 places in time'),
    ],
)
def test_a_given_grid_must_fit_the_tables(tmp_path, kind, grid, message):
    path = write(tmp_path, old_state(arrays(MODELS[kind][0])))
    with pytest.raises(UserError, match=message):
        read_scenic(path, grid=grid)


def test_given_grid(tmp_path):
    shapes = {**around((2, 16, 16)), **encoder('Transformer', 36, 1)}
    path = write(tmp_path, old_state(arrays(shapes)))
    weights = read_scenic(path, 'vivit_joint', grid=(9, 2, 2))
    assert weights.grid == (9, 2, 2) and not weights.notes
    assert read_weights(path, model='vivit_joint', grid=(9, 2, 2)).grid == (9, 2, 2)
    assert weights.card.preprocessing.clip_shape == (18, 32, 32)


def test_folder_with_one_checkpoint(tmp_path):
    params = arrays(JOINT)
    write(tmp_path, old_state(params), 'checkpoint_12')
    (tmp_path / 'events.out').write_bytes(b'x')
    assert_params(read_scenic(tmp_path), params)
    write(tmp_path, old_state(params), 'checkpoint_13')
    with pytest.raises(UserError, match=r'2 files .*checkpoint_12, checkpoint_13'):
        read_scenic(tmp_path)


@pytest.mark.parametrize('kept', [0.1, 0.5, 0.999])
@pytest.mark.parametrize('generation', [old_state, new_state])
def test_truncated(generation, kept, tmp_path):
    path = write(tmp_path, generation(arrays(JOINT)))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match='truncated'):
        read_scenic(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (msgpack.packb([1, 2]), 'no train state'),
        (b'\x81\xa6params\xc1', 'damaged'),
        (msgpack.packb({'params': {'a': msgpack.ExtType(9, b'x')}}), 'unknown extension type 9'),
        (msgpack.packb({'model': 1, 'epoch': 2}), 'it holds model, epoch, but no'),
        (msgpack.packb({'params': 1}), 'no parameters'),
        (msgpack.packb({}), 'it holds nothing'),
    ],
)
def test_what_is_no_train_state(content, message, tmp_path):
    (tmp_path / 'checkpoint').write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_scenic(tmp_path / 'checkpoint')
    with pytest.raises(UserError, match='cannot be read'):
        read_scenic(tmp_path / 'elsewhere')


def test_objects_are_not_unpickled(tmp_path):
    data = msgpack.packb(((1,), 'object', b'\x80\x04N.____'), use_bin_type=True)
    content = msgpack.packb({'params': {'a': msgpack.ExtType(1, data)}})
    (tmp_path / 'checkpoint').write_bytes(content)
    with pytest.raises(UserError, match='damaged'):
        read_scenic(tmp_path / 'checkpoint')


def test_checkpoint_of_another_model(tmp_path):
    params = {'conv_init/kernel': np.ones((7, 7, 3, 8)), 'bn_init/scale': np.ones(8)}
    with pytest.raises(UserError) as caught:
        read_scenic(write(tmp_path, old_state(params)))
    assert 'it holds bn_init, conv_init' in str(caught.value)
    assert 'embedding/kernel: missing' in str(caught.value)


def test_all_that_is_wrong_is_listed(tmp_path):
    params = arrays(MODELS['fe'][0])
    del params['TemporalTransformer/encoderblock_1/LayerNorm_0/scale']
    params['SpatialTransformer/encoder_norm/bias'] = np.ones(3, np.float32)
    params['pre_logits/kernel'] = np.ones((WIDTH, 8), np.float32)
    with pytest.raises(UserError) as caught:
        read_scenic(write(tmp_path, old_state(params)))
    for line in (
        'TemporalTransformer/encoderblock_1/LayerNorm_0/scale: missing, needed (16,)',
        'SpatialTransformer/encoder_norm/bias: (3,), needed (16,)',
        'pre_logits/kernel: (16, 8), which this model does not have',
    ):
        assert line in str(caught.value)


@pytest.mark.parametrize(('places', 'message'), [(7, '7 places'), (10, '10 places')])
def test_positions_that_form_no_squares(places, message, tmp_path):
    joint = {**around(), **encoder('Transformer', places, 1)}
    with pytest.raises(UserError, match=message):
        read_scenic(write(tmp_path, old_state(arrays(joint))))
    spatial = {**around(), **encoder('SpatialTransformer', places, 1)}
    with pytest.raises(UserError, match=f'{message} in space'):
        read_scenic(write(tmp_path, old_state(arrays(spatial))))


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='needs /proc')
@pytest.mark.parametrize('generation', [old_state, new_state])
def test_memory_stays_near_the_size_of_the_parameters(generation, tmp_path):
    layers, m = 12, 4096
    flat = {
        f'Transformer/encoderblock_{i}/MlpBlock_0/Dense_0/kernel': (512, m) for i in range(layers)
    }
    params = {name: np.ones(shape, np.float32) for name, shape in flat.items()}
    size = sum(x.nbytes for x in params.values())
    state = generation(params)
    slots = {f'{i}': np.ones((512, m), np.float32) for i in range(2 * layers)}
    if generation is old_state:
        state['optimizer']['state']['slots'] = slots
    else:
        state['opt_state']['slots'] = slots
    path = write(tmp_path, state)
    assert path.stat().st_size > 2.9 * size
    # ru_maxrss would not do: a child inherits the value of its parent.
    code = """if True:
        import re, sys
        from pathlib import Path
        from vivit_jax.weights.flax_msgpack import read_train_state

        def peak():
            status = Path('/proc/self/status').read_text()
            return 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', status)[1])

        before = peak()
        tree, _ = read_train_state(Path(sys.argv[1]))
        print(peak() - before)
    """
    command = [sys.executable, '-c', code, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert size <= int(result.stdout) < 1.8 * size
