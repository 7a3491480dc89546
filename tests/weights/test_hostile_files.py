"""Damaged and hostile files of weights: each is refused in one line that names the cause."""

import io
import json
import os
import zipfile

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_params
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.huggingface import write_huggingface
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.misfits import count_layers
from vivit_jax.weights.orbax import write_checkpoint
from vivit_jax.weights.torch_export import export_torch
from vivit_jax.weights.vivit_jax_npz import write_npz

SPEC = Preprocessing(num_frames=4, frame_stride=3, short_side=20, crop_size=16)
SIZES = {'hidden_size': 24, 'num_layers': 2, 'num_heads': 3, 'mlp_dim': 40}
MODEL = {'name': 'vivit_joint', 'num_classes': 3, 'tubelet_size': (2, 8, 8), **SIZES}
CARD = ModelCard(MODEL, SPEC, ('a', 'b', 'c'))


@pytest.fixture(scope='module')
def params():
    shapes = abstract_params(create_model(**MODEL), SPEC.clip_shape)
    return jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), shapes)


def refusal(path, read=read_weights, **how):
    with pytest.raises(UserError) as caught:
        read(path, **how)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def exported(path, params, change=lambda arrays, metadata: None):
    """A file for PyTorch, whose arrays and metadata are changed afterwards."""
    export_torch(CARD, params, path)
    with safetensors.safe_open(path, 'np') as file:
        metadata = file.metadata()
    arrays = safetensors.numpy.load_file(path)
    change(arrays, metadata)
    safetensors.numpy.save_file(arrays, path, metadata)
    return path


def folder_of(path, params, name='config.json', **changes):
    """A folder of Hugging Face without our card, with changes of one of its configurations."""
    write_huggingface(CARD, params, path)
    for file, more in (('config.json', {}), (name, changes)):
        config = json.loads((path / file).read_text())
        config.pop('vivit_jax', None)
        (path / file).write_text(json.dumps(config | more))
    return path


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_the_first_array_that_is_not_finite_is_named(tmp_path, params, value):
    changed = jax.tree.map(np.copy, params)
    changed['cls'][0, 0, 3] = changed['embedding']['bias'][0] = value
    write_npz(CARD, changed, tmp_path / 'w.npz')
    write_checkpoint(CARD, changed, tmp_path / 'run')
    for path in (tmp_path / 'w.npz', tmp_path / 'run'):
        message = refusal(path)
        assert f'{path}: cls holds 1 values that are not finite' in message
        assert '--allow_non_finite' in message and 'init.allow_non_finite' in message
        found = read_weights(path, allow_non_finite=True).params['cls']
        np.testing.assert_array_equal(found, changed['cls'])


@pytest.mark.parametrize('kind', [np.int32, bool, np.complex64])
def test_other_numbers_than_floats_are_refused_even_with_the_flag(tmp_path, params, kind):
    def change(arrays, _):
        arrays['head.bias'] = arrays['head.bias'].astype(kind)

    path = exported(tmp_path / 'w.safetensors', params, change)
    message = refusal(path, allow_non_finite=True)
    assert f'head.bias holds {np.dtype(kind).name}' in message

    changed = jax.tree.map(lambda x: np.asarray(x).astype(kind), params)
    write_checkpoint(CARD, changed, tmp_path / 'run')
    assert f'holds {np.dtype(kind).name}' in refusal(tmp_path / 'run', allow_non_finite=True)


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('model.num_heads', '3', "num_heads='3' must be of the type int"),
        ('model.num_layers', 100_000, 'num_layers=100000 cannot be: there are 40 arrays'),
        ('model.layer_norm_eps', None, 'layer_norm_eps=None must be of the type float'),
        pytest.param('model.layer_norm_eps', 10**400, '000 must be a finite number', id='huge'),
        ('model.layer_norm_eps', float('nan'), 'layer_norm_eps=nan'),
        ('model', [1], 'the model card is damaged'),
        ('model.name', ['a'], 'the model card is damaged'),
        ('preprocessing', None, 'the model card is damaged'),
        ('preprocessing.num_frames', 2 * 10**9, 'too large'),
        ('preprocessing.value_range', [0], 'must be two numbers'),
        ('preprocessing.value_range', ['a', 'b'], 'value_range'),
        ('label_names', ['a'], 'has 1 names, and the model has 3 classes'),
        ('label_names', [1, 2, 3], 'must be texts'),
    ],
)
def test_a_malformed_card_is_refused_by_both_frameworks(tmp_path, params, key, value, message):
    def change(_, metadata):
        content = json.loads(metadata['vivit_jax'])
        *sections, last = key.split('.')
        node = content['card']
        for section in sections:
            node = node[section]
        node[last] = value
        metadata['vivit_jax'] = json.dumps(content)

    path = exported(tmp_path / 'w.safetensors', params, change)
    assert message in refusal(path)
    pytest.importorskip('torch', reason='needs PyTorch')
    from vivit_jax.torch import load_model

    assert message in refusal(path, load_model)


def test_metadata_of_thousands_of_levels_or_no_object_are_refused(tmp_path, params):
    for text in ('[' * 200_000, '[1]', '3', '{'):

        def change(_, metadata, text=text):
            metadata['vivit_jax'] = text

        assert 'JSON' in refusal(exported(tmp_path / 'w.safetensors', params, change))
        np.savez(tmp_path / 'w.npz', a=np.zeros(3), metadata=np.array(text))
        assert 'JSON' in refusal(tmp_path / 'w.npz')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'num_hidden_layers': 100_000}, 'num_layers=100000 cannot be'),
        ({'num_attention_heads': '3'}, 'num_heads'),
        ({'layer_norm_eps': None}, 'layer_norm_eps'),
        ({'id2label': ['a', 'b', 'c']}, 'id2label'),
        ({'id2label': {'0': 'a', '1': 'b', '3': 'c'}}, 'id2label must name the 3 classes'),
        ({'problem_type': 'regression'}, "problem_type='regression'"),
        ({'name': 'preprocessor_config.json', 'do_normalize': True, 'image_std': 0}, 'image_std'),
    ],
)
def test_configurations_of_hugging_face_are_checked(tmp_path, params, changes, message):
    assert message in refusal(folder_of(tmp_path / 'hf', params, **changes))


@pytest.mark.parametrize(
    ('shards', 'message'),
    [
        ({'a': 'gone.safetensors'}, 'gone.safetensors cannot be read: No such file'),
        ({'a': '../other/model.safetensors'}, 'no file of its own folder'),
        ({'a': '/dev/zero'}, 'no file of its own folder'),
        ({'a': '..'}, 'no regular file'),
        ({'a': 1}, 'cannot be read'),
        ([1], 'no list of shards'),
        ({}, 'no list of shards'),
        (None, 'no list of shards'),
    ],
)
def test_shards_are_files_of_the_folder(tmp_path, params, shards, message):
    path = folder_of(tmp_path / 'hf', params)
    folder_of(tmp_path / 'other', params)
    (path / 'model.safetensors').unlink()
    (path / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': shards}))
    assert message in refusal(path)


def test_only_regular_files_are_read(tmp_path, params):
    os.mkfifo(tmp_path / 'w.npz')
    assert 'no regular file' in refusal(tmp_path / 'w.npz')
    for name in ('model.safetensors', 'preprocessor_config.json'):
        path = folder_of(tmp_path / name.replace('.', '_'), params)
        (path / name).unlink()
        (path / name).symlink_to('/dev/zero')
        assert 'no regular file' in refusal(path)


def npy(shape, data=b''):
    file = io.BytesIO()
    header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def test_headers_claim_what_they_like(tmp_path, params):
    write_npz(CARD, params, tmp_path / 'w.npz')
    arrays = dict(np.load(tmp_path / 'w.npz'))
    del arrays['cls']
    for shape in ((2**40,), (2**80,), (-5,)):
        np.savez(tmp_path / 'w.npz', **arrays)
        with zipfile.ZipFile(tmp_path / 'w.npz', 'a') as archive:
            archive.writestr('cls.npy', npy(shape, bytes(40)))
        assert 'w.npz: cls cannot be read' in refusal(tmp_path / 'w.npz')


def test_an_encrypted_archive_is_refused(tmp_path, params):
    path = tmp_path / 'w.npz'
    write_npz(CARD, params, path)
    content = path.read_bytes()
    for mark, place in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):  # of a member, and in the list
        parts = content.split(mark)
        flagged = [x[: place - 4] + bytes([x[place - 4] | 1]) + x[place - 3 :] for x in parts[1:]]
        content = mark.join([parts[0], *flagged])
    path.write_bytes(content)
    assert 'encrypted' in refusal(path)


def test_an_archive_that_unpacks_to_much_is_not_unpacked(tmp_path):
    path = tmp_path / 'w.npz'
    with (
        zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open('a.npy', 'w') as member,
    ):
        member.write(npy((75_000_000,)))
        for _ in range(300):
            member.write(bytes(10**6))
    assert path.stat().st_size < 2e6
    assert 'claims to hold 300 MB' in refusal(path)


def test_views_in_a_file_of_torch_do_not_grow(tmp_path):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    torch.save({'blocks.0.attn.qkv.weight': torch.zeros(1).expand(10**9, 1)}, tmp_path / 'w.pth')
    assert 'claims to hold 4000 MB' in refusal(tmp_path / 'w.pth')


def test_types_that_numpy_lacks_are_named(tmp_path):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    from safetensors.torch import save_file

    name = 'blocks.0.attn.qkv.weight'
    content = {name: torch.zeros(6, 2, dtype=torch.float8_e4m3fn)}
    save_file(content, tmp_path / 'w.safetensors')
    torch.save(content, tmp_path / 'w.pth')
    for path in (tmp_path / 'w.safetensors', tmp_path / 'w.pth'):
        message = refusal(path)
        assert f'{name} cannot be read' in message and 'float8' in message.lower()


def test_layers_are_bounded_by_their_arrays():
    assert count_layers(r'b(\d+)/', ['b0/x', 'b1/x', 'b01/y', 'c7/x']) == 2
    for number in ('99999', '9' * 5000):
        with pytest.raises(ValueError, match='layer 1 is missing'):
            count_layers(r'b(\d+)/', ['b0/x', f'b{number}/x'])
