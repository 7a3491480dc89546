import pytest

from vivit_jax.errors import UserError
from vivit_jax.video.find_videos import find_videos, read_list
from vivit_jax.video.frame_reader import VideoError


@pytest.fixture
def folder(tmp_path):
    for name in (
        'b.mp4',
        'a.MKV',
        'notes.txt',
        'cover1.jpg',  # beside videos an image is no frame
        '.hidden.mp4',
        'deep/er/c.webm',
        '.trash/d.mp4',
        'frames/x/00001.jpg',
        'frames/x/00002.jpg',
        'frames/y/img_1.png',
        'frames/y/thumb1.jpg',
        'frames/z/thumb1.jpg',
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_folder_stands_for_the_videos_in_it(folder):
    names = ('a.MKV', 'b.mp4', 'deep/er/c.webm', 'frames/x', 'frames/y')
    assert find_videos(str(folder)) == [str(folder / name) for name in names]


def test_folder_of_images_is_one_video(folder):
    assert find_videos(str(folder / 'frames/x')) == [str(folder / 'frames/x')]


def test_other_path_stands_for_itself(folder):
    for name in ('notes.txt', 'missing.mp4'):
        assert find_videos(str(folder / name)) == [str(folder / name)]


def test_folder_without_videos_is_an_error(folder):
    with pytest.raises(VideoError, match='frames/z: holds no videos'):
        find_videos(str(folder / 'frames/z'))


@pytest.mark.parametrize(
    'text',
    [
        'a.mp4\n\n  sub/b c.mp4  \n/abs/c.mp4\n',
        'label,video_path\nx,a.mp4\ny,sub/b c.mp4\n,/abs/c.mp4\n',
    ],
    ids=['lines', 'CSV'],
)
def test_list_names_videos_relative_to_itself(tmp_path, text):
    (tmp_path / 'list').write_text(text)
    expected = [str(tmp_path / 'a.mp4'), str(tmp_path / 'sub/b c.mp4'), '/abs/c.mp4']
    assert read_list(str(tmp_path / 'list')) == [(path, '') for path in expected]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('\n\n', 'list: names no videos'),
        ('video_path,label\n', 'list: names no videos'),
        ('video_path,label\na.mp4,x\n,y\n', 'list, line 3: no video_path'),
        (None, 'No such file'),
    ],
)
def test_unusable_list_is_an_error(tmp_path, text, message):
    if text is not None:
        (tmp_path / 'list').write_text(text)
    with pytest.raises(UserError, match=message):
        read_list(str(tmp_path / 'list'))
