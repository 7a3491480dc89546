import os

import pytest

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.annotations.readers.text_files import find_lists, read_lines, read_table
from vivit_jax.annotations.readers.video_folder import VideoFolder


@pytest.fixture
def folder(tmp_path):
    for name in ('a/x.mp4', 'a/x.avi', 'a/y.MKV', 'a/y.txt', 'B/Z.webm', 'root.mp4'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'a' / 'frames').mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ('candidates', 'found'),
    [
        (['a/x.mp4'], 'a/x.mp4'),
        (['a/x.webm'], 'a/x.avi'),  # the first by name
        (['a/y.mp4'], 'a/y.MKV'),
        (['a/y'], 'a/y.MKV'),
        (['a/frames'], 'a/frames'),
        (['a/frames.avi'], 'a/frames'),
        (['a/none.mp4', 'root.mp4', 'a/x.mp4'], 'root.mp4'),
        (['none.mp4', 'a/none.mp4', 'c/d/none.mp4'], 'a/none.mp4'),  # deepest that exists
        (['c/none.mp4', 'd/none.mp4'], 'c/none.mp4'),
        (['b/z.webm', 'b/z.mp4'], 'b/z.webm'),
    ],
)
def test_first_candidate_that_exists_is_found(folder, candidates, found):
    assert VideoFolder(folder).find(candidates) == str(folder / found)


def test_case_is_ignored_on_request(folder):
    assert VideoFolder(folder, ignore_case=True).find(['b/z.mp4']) == str(folder / 'B/Z.webm')


def test_every_folder_is_listed_once(folder, monkeypatch):
    listed, list_folder = [], os.listdir
    monkeypatch.setattr(os, 'listdir', lambda path: listed.append(path) or list_folder(path))
    videos = VideoFolder(folder)
    for number in range(5):
        videos.find([f'a/{number}.mp4', f'none/{number}.mp4', f'{number}.mp4'])
    assert len(listed) == 3


def test_lists_are_found_in_subfolders(tmp_path):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'b.txt').touch()
    (tmp_path / 'c.txt').touch()
    wanted = {'train': ['a.txt', 'b.txt', 'c.txt'], 'test': ['d.txt']}
    assert find_lists(tmp_path, wanted) == {'train': tmp_path / 'annotations' / 'b.txt'}
    with pytest.raises(AnnotationError, match=r'looked for d\.txt, there and in annotations/'):
        find_lists(tmp_path, {'test': ['d.txt']})


def test_lines_lose_their_ends_and_blanks(tmp_path):
    (tmp_path / 'list.txt').write_bytes('\ufeffa b 1 \r\n\r\n  c 2\n'.encode())
    place = f'{tmp_path / "list.txt"}, line'
    assert read_lines(tmp_path / 'list.txt') == [(f'{place} 1', 'a b 1'), (f'{place} 3', 'c 2')]


def test_table_is_read_by_header(tmp_path):
    (tmp_path / 'table.csv').write_bytes('\ufeff b , a\r\n"x, ""y""", 1 \r\n'.encode())
    ((place, values),) = read_table(tmp_path / 'table.csv', ['a', 'b'])
    assert values == {'a': '1', 'b': 'x, "y"'}
    assert place.endswith('table.csv, line 2')


@pytest.mark.parametrize(
    ('content', 'reason'),
    [(b's\xe4ge', 'not in UTF-8'), (b'a\0b', 'null bytes'), (None, 'No such')],
)
def test_unreadable_file_raises_path_and_reason(tmp_path, content, reason):
    if content:
        (tmp_path / 'a.txt').write_bytes(content)
    with pytest.raises(AnnotationError, match=rf'a\.txt: .*{reason}'):
        read_lines(tmp_path / 'a.txt')
