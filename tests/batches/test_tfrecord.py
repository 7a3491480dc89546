import io
import logging
import pickle
import struct

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.proto.tf_example_generated_pb2 import SequenceExample

from vivit_jax.batches.tfrecord import find_tfrecords, load_tfrecords
from vivit_jax.errors import UserError
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.limits import Limits

CLASSES = ('playing drums', 'archery', 'yoga')


def _crc32c(data):
    """Division of polynomials over bits, by Castagnoli's 0x1EDC6F41 with its bits reversed."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
    return crc ^ 0xFFFFFFFF


def _masked(data):
    crc = _crc32c(data)
    return struct.pack('<I', (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32)


def _framed(record):
    length = struct.pack('<Q', len(record))
    return length + _masked(length) + record + _masked(record)


def _jpeg(shade):
    file = io.BytesIO()
    Image.new('RGB', (16, 8), (shade, shade, shade)).save(file, format='JPEG')
    return file.getvalue()


def _record(text, shades, name='', index=77):
    example = SequenceExample()
    context = example.context.feature
    if text is not None:
        context['clip/label/text'].bytes_list.value.append(text.encode())
    context['clip/label/index'].int64_list.value.append(index)
    if name:
        context['video/filename'].bytes_list.value.append(name.encode())
    for shade in shades:
        frame = example.feature_lists.feature_list['image/encoded'].feature.add()
        frame.bytes_list.value.append(_jpeg(shade))
    return example.SerializeToString()


def _write(path, *records):
    path.write_bytes(b''.join(map(_framed, records)))
    return str(path)


@pytest.fixture
def shards(tmp_path):
    records = [
        [_record('archery', [10, 20, 30], 'a.mp4'), _record('yoga', [40])],
        [],
        [_record('playing drums', [50, 60], 'ü.mp4')],
    ]
    for shard, content in enumerate(records):
        _write(tmp_path / f'train.tfrecord-{shard:05d}-of-00003', *content)
    return str(tmp_path / 'train.tfrecord@3')


def _shades(reader):
    return reader.read(range(len(reader))).mean(axis=(1, 2, 3)).round().tolist()


def test_checksum_is_that_of_the_standard():
    # RFC 3720, B.4: 32 bytes of zeros, of ones, and ascending ones.
    assert _crc32c(bytes(32)) == 0x8A9136AA
    assert _crc32c(b'\xff' * 32) == 0x62A8AB43
    assert _crc32c(bytes(range(32))) == 0x46DD794E


def test_records_have_their_labels_names_and_frames(shards):
    source = load_tfrecords(shards, CLASSES)
    assert len(source) == 3
    assert [source.label(i) for i in range(3)] == [1, 2, 0]
    assert source.name(0) == 'a.mp4'
    assert source.name(2) == 'ü.mp4'
    assert source.name(1).endswith(f'00000-of-00003, record at byte {source.places[1, 1]}')
    for index, shades in [(2, [50, 60]), (0, [10, 20, 30]), (1, [40])]:
        with source.open(index) as video:
            assert video.name == source.name(index)
            assert _shades(video.main) == shades
    with pytest.raises(VideoError, match=r'it has 3 frames, .* data\.limits\.max_frames allows 2'):
        load_tfrecords(shards, CLASSES, Limits(max_frames=2))


def test_source_pickles_and_reads_on(shards):
    with pickle.loads(pickle.dumps(load_tfrecords(shards, CLASSES))).open(2) as video:
        assert _shades(video.main) == [50, 60]


@pytest.mark.parametrize(
    'pattern', ['', 'train.tfrecord@3', 'train.tfrecord-00002-of-00003', 'train.tfrecord-?']
)
def test_patterns_name_all_shards(shards, tmp_path, pattern):
    (tmp_path / 'notes.txt').touch()
    if '?' in pattern:
        with pytest.raises(UserError, match='no such file; several shards are named'):
            find_tfrecords(str(tmp_path / pattern))
        return
    expected = tuple(str(tmp_path / f'train.tfrecord-{i:05d}-of-00003') for i in range(3))
    assert find_tfrecords(str(tmp_path / pattern)) == expected


def test_one_file_needs_no_shards(tmp_path):
    path = _write(tmp_path / 'mine.tfrecord', _record('yoga', [10]))
    assert find_tfrecords(path) == find_tfrecords(str(tmp_path)) == (path,)
    assert load_tfrecords(path, CLASSES).label(0) == 2


def test_missing_files_raise(shards, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match=r'no file in this folder has \.tfrecord in its name'):
        find_tfrecords(str(tmp_path / 'empty'))
    (tmp_path / 'train.tfrecord-00001-of-00003').unlink()
    for pattern in ('', 'train.tfrecord@3', 'train.tfrecord-00000-of-00003'):
        with pytest.raises(UserError, match=r'1 of 3 shards do not exist, such as .*-00001-of-'):
            find_tfrecords(str(tmp_path / pattern))


def test_context_is_read_wherever_it_is(tmp_path):
    record = _record('yoga', [10], 'v' * 9000)  # longer than what is read at first
    example = SequenceExample.FromString(record)
    context = SequenceExample(context=example.context).SerializeToString()
    assert record.startswith(context)
    swapped = record[len(context) :] + context
    source = load_tfrecords(_write(tmp_path / 'a.tfrecord', swapped, record), CLASSES)
    assert [source.label(i) for i in range(2)] == [2, 2]
    assert source.name(0) == source.name(1) == 'v' * 9000


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('Archery', r"label 'Archery' is none of the 3 classes; did you mean 'archery'\?"),
        ('x', r"label 'x' is none of the 3 classes\. Give the list"),
        (None, r"has 0 labels in 'clip/label/text'; its context has \['clip/label/index'\]"),
    ],
)
def test_unknown_labels_raise(tmp_path, text, reason):
    path = _write(tmp_path / 'a.tfrecord', _record('yoga', [10]), _record(text, [10]))
    with pytest.raises(UserError, match=rf'a\.tfrecord, record at byte \d+: .*{reason}'):
        load_tfrecords(path, CLASSES)


def test_vectors_for_verb_and_noun_are_explained(tmp_path):
    example = SequenceExample()
    example.context.feature['clip/label/index'].float_list.value.extend([0.0] * 397)
    path = _write(tmp_path / 'a.tfrecord', example.SerializeToString())
    with pytest.raises(UserError, match='vectors for verb and noun as EPIC-KITCHENS has'):
        load_tfrecords(path, CLASSES)


@pytest.mark.parametrize('kept', [5, 11, 12, 40, -1])
def test_cut_file_raises_its_place(tmp_path, kept):
    path = tmp_path / 'a.tfrecord'
    _write(path, _record('yoga', [10]))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r'a\.tfrecord: is no TFRecord file, or damaged, at byte 0'):
        load_tfrecords(str(path), CLASSES)


@pytest.mark.parametrize('byte', range(12))
def test_damaged_length_raises(tmp_path, byte):
    path = tmp_path / 'a.tfrecord'
    _write(path, _record('yoga', [10]))
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match='damaged, at byte 0 of'):
        load_tfrecords(str(path), CLASSES)


def test_other_records_and_empty_files_raise(tmp_path):
    with pytest.raises(UserError, match='record at byte 12: is no SequenceExample'):
        load_tfrecords(_write(tmp_path / 'a.tfrecord', b'hello' * 20), CLASSES)
    with pytest.raises(UserError, match='its 1 files hold no records'):
        load_tfrecords(_write(tmp_path / 'b.tfrecord'), CLASSES)


def test_damaged_record_raises_its_name(tmp_path):
    path = tmp_path / 'a.tfrecord'
    _write(path, _record('yoga', [10]), _record('yoga', [20], 'b.mp4'), _record('yoga', []))
    source = load_tfrecords(str(path), CLASSES)
    content = bytearray(path.read_bytes())
    start, size = source.places[1, 1:]
    content[start + 100 : start + size] = bytes(int(size) - 100)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r'b\.mp4'):
        source.open(1).read([0])
    with pytest.raises(VideoError, match='has no frames'):
        source.open(2)
    path.unlink()
    with pytest.raises(VideoError, match=r'b\.mp4: record .* is damaged \(No such file'):
        source.open(1)


@pytest.mark.parametrize(('count', 'warns'), [(100, True), (124, True), (125, False), (250, False)])
def test_unusual_number_of_frames_is_told(tmp_path, caplog, count, warns):
    path = _write(tmp_path / 'a.tfrecord', _record('yoga', [10] * count, 'b.mp4'))
    with caplog.at_level(logging.INFO):
        assert np.array_equal(load_tfrecords(path, CLASSES).places[:, 0], [0])
    assert '1 records in 1 files' in caplog.text
    assert (f'b.mp4 has {count} frames' in caplog.text) == warns
