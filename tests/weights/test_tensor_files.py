"""Files of named arrays: other libraries write them, `tensor_files` reads them."""

import io
import json
import pickle
import zipfile

import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy

from vivit_jax.errors import UserError
from vivit_jax.weights.tensor_files import file_format, open_tensors, save_tensors

ARRAYS = {
    'a/kernel': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b': np.float16([1.5, -2.0]),
    'c': np.float64([7]),
    'd': np.arange(4, dtype=np.float32).astype(ml_dtypes.bfloat16),
}


def assert_equal(found, expected=ARRAYS):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_npz_of_numpy(tmp_path):
    np.savez(tmp_path / 'w.npz', **ARRAYS)
    assert file_format(tmp_path / 'w.npz') == 'npz'
    assert_equal(open_tensors(tmp_path / 'w.npz'))


def test_safetensors_of_their_library(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / 'w.safetensors', {'x': 'y'})
    tensors = open_tensors(tmp_path / 'w.safetensors')
    assert file_format(tmp_path / 'w.safetensors') == 'safetensors'
    assert tensors.metadata == {'x': 'y'}
    assert_equal(tensors)


@pytest.mark.parametrize('nesting', [(), ('state_dict',), ('model', 'module')])
@pytest.mark.parametrize('zipped', [True, False])
def test_state_dict_of_torch(tmp_path, nesting, zipped):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    content = {k: torch.from_numpy(v) for k, v in ARRAYS.items() if v.dtype != ml_dtypes.bfloat16}
    content['d'] = torch.arange(4, dtype=torch.bfloat16)
    for name in reversed(nesting):
        content = {name: content, 'epoch': 3}
    path = tmp_path / 'w.pth'
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert file_format(path) == 'torch'
    assert_equal(open_tensors(path))


@pytest.mark.parametrize('suffix', ['npz', 'safetensors'])
def test_what_is_written_is_read_by_the_libraries_and_by_us(tmp_path, suffix):
    path = tmp_path / 'folder' / f'w.{suffix}'
    turned = {**ARRAYS, 'a/kernel': ARRAYS['a/kernel'].T}  # not contiguous
    save_tensors(path, dict(turned), {'x': 'ÿ'})
    tensors = open_tensors(path)
    assert_equal(tensors, turned)
    assert tensors.metadata == {'x': 'ÿ'}
    theirs = safetensors.numpy.load_file(path) if suffix == 'safetensors' else np.load(path)
    np.testing.assert_array_equal(theirs['a/kernel'], turned['a/kernel'])
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_shards_are_one_mapping(tmp_path):
    names = {'a/kernel': '1.safetensors', 'b': '2.safetensors', 'c': '1.safetensors'}
    for file in ('1.safetensors', '2.safetensors'):
        part = {name: ARRAYS[name] for name in names if names[name] == file}
        safetensors.numpy.save_file(part, tmp_path / file)
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(json.dumps({'metadata': {}, 'weight_map': names}))
    assert_equal(open_tensors(index), {name: ARRAYS[name] for name in names})
    index.write_text(json.dumps({'weight_map': {**names, 'e': '1.safetensors'}}))
    with pytest.raises(UserError, match=r'lack: e$'):
        open_tensors(index)


class Malicious:
    def __reduce__(self):
        return (exec, ('raise SystemExit("this code came from a file")',))


def _pickled_npz(path):
    np.savez(path, weights=np.array([Malicious()], object))


def _pickled_torch(path):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'optimizer': Malicious()}, path)


def _pickle(path):
    pytest.importorskip('torch', reason='needs PyTorch')
    path.write_bytes(pickle.dumps(Malicious(), protocol=2))


@pytest.mark.parametrize('write', [_pickled_npz, _pickled_torch, _pickle])
def test_no_code_of_a_file_is_run(tmp_path, write):
    path = tmp_path / 'w.npz'
    write(path)
    with pytest.raises(UserError, match=r'unpickling|never loaded') as caught:
        dict(open_tensors(path))
    assert 'weights_only' not in str(caught.value) and 'succeed' not in str(caught.value)


@pytest.mark.parametrize('suffix', ['npz', 'safetensors', 'pth'])
def test_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f'w.{suffix}'
    if suffix == 'pth':
        torch = pytest.importorskip('torch', reason='needs PyTorch')
        torch.save({'a': torch.zeros(100, 100)}, path)
    else:
        save_tensors(path, {'a': np.zeros((100, 100), np.float32)}, {})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f'w.{suffix} .*(damaged|download it again)'):
        dict(open_tensors(path))


def test_damaged_member_of_an_npz_is_named(tmp_path):
    path = tmp_path / 'w.npz'
    array = io.BytesIO()
    np.save(array, np.zeros(100, np.float32))
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.npy', array.getvalue()[:-50])
    with pytest.raises(UserError, match=r'w\.npz: a cannot be read'):
        dict(open_tensors(path))


@pytest.mark.parametrize('num_keys', [2, 20, 70_000])
def test_msgpack_is_told_from_a_pickle(tmp_path, num_keys):
    content = msgpack.packb({f'key{i}': i for i in range(num_keys)})
    (tmp_path / 'checkpoint').write_bytes(content)
    assert file_format(tmp_path / 'checkpoint') == 'msgpack'


@pytest.mark.parametrize('content', [b'', b'<!DOCTYPE html><html>', b'\x89HDF\r\n\x1a\n' * 9])
def test_other_files_are_shown_as_what_they_are(tmp_path, content):
    (tmp_path / 'w.npz').write_bytes(content)
    with pytest.raises(UserError, match=r'w\.npz is no file of weights .* expected \.npz'):
        open_tensors(tmp_path / 'w.npz')


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r'w\.npz cannot be read: No such file'):
        open_tensors(tmp_path / 'w.npz')
