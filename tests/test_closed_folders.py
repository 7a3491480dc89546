"""A file in a folder that the user may not enter is not called missing."""

import codecs
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.annotations.readers.video_folder import VideoFolder
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.config.saved_run import get_config
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError, near_paths
from vivit_jax.train.run_lock import hold
from vivit_jax.video.find_videos import find_videos
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.weights.load import read_weights


@pytest.fixture
def closed():
    """A folder that this user may not enter, in one that all users may."""
    parent, user = Path(tempfile.mkdtemp()), os.geteuid()
    parent.chmod(0o755)
    folder = parent / 'closed'
    folder.mkdir()
    (folder / 'a.mp4').touch()
    (parent / 'list.csv').write_text('video_path,label\nclosed/a.mp4,x\nclosed/b.mp4,y\n')
    codecs.lookup('utf-8-sig')  # no other user may be able to import it
    folder.chmod(0)
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o700)
    shutil.rmtree(parent)


def _load(**keys):
    config = default_config()
    config.data.update(keys)
    return load_dataset(config.data, seed=0)


@pytest.mark.parametrize(
    ('use', 'says'),
    [
        (lambda folder: near_paths(folder / 'a.mp4'), None),
        (lambda folder: get_config(folder / 'config.json'), 'may not enter'),
        (lambda folder: read_weights(folder / 'run'), 'run cannot be read (Permission denied)'),
        (lambda folder: find_videos(folder), 'closed: cannot be read (Permission denied)'),
        (lambda folder: VideoFolder(folder).names(), 'closed cannot be read (Permission denied)'),
        (lambda folder: _load(train_csv=str(folder / 'a.csv')), 'may not enter'),
        (lambda folder: _load(train_csv=str(folder.with_name('list.csv'))), 'may not enter'),
        (lambda folder: _load(source='records', root=str(folder)), 'may not enter'),
        (lambda folder: _load(source='ssv2', root=str(folder / 'ssv2')), 'may not enter'),
        (lambda folder: hold(folder / 'run').__enter__(), 'cannot be a folder (Permission denied)'),
    ],
)
def test_a_closed_folder_is_named(closed, use, says):
    if says is None:
        assert use(closed).endswith('this user may not enter its folder (Permission denied)')
        return
    with pytest.raises((UserError, VideoError, AnnotationError), match=re.escape(says)):
        use(closed)
