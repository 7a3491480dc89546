"""Features of videos from frozen models, and their files."""

import csv
import os
import shutil
import sys

import jax
import numpy as np
import pytest
from python_process import run_python

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.errors import UserError
from vivit_jax.evaluation.forward import create_forward
from vivit_jax.features.backbone import read_backbone
from vivit_jax.features.cache import Cache
from vivit_jax.features.extract import extract
from vivit_jax.features.listing import list_videos
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import init_variables
from vivit_jax.video.clips import read_view
from vivit_jax.video.open import open_video
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.orbax import write_checkpoint

SPEC = Preprocessing(num_frames=4, frame_stride=1, short_side=16, crop_size=16)
KEYWORDS = {
    'name': 'vivit_joint',
    'hidden_size': 16,
    'num_layers': 1,
    'num_heads': 2,
    'mlp_dim': 16,
    'tubelet_size': (2, 8, 8),
    'num_classes': 3,
}
IMAGE = {
    **KEYWORDS,
    'tokenizer': 'uniform_frames',
    'num_sampled_frames': 1,
    'tubelet_size': (1, 8, 8),
}
IMAGE_SPEC = Preprocessing(num_frames=1, frame_stride=1, short_side=16, crop_size=16)


def write_model(folder, keywords, spec, seed=0):
    model = create_model(**keywords)
    variables = init_variables(jax.random.key(seed), model, spec.clip_shape)
    write_checkpoint(ModelCard(keywords, spec, ('a', 'b', 'c')), variables['params'], folder)
    return folder


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    return {
        'video': write_model(folder / 'video', KEYWORDS, SPEC),
        'image': write_model(folder / 'image', IMAGE, IMAGE_SPEC),
    }


@pytest.fixture
def videos(synthetic_folder):
    return list_videos(str(synthetic_folder / 'test.csv'))[:3]


def test_features_are_those_of_the_forward_pass(checkpoints, videos, tmp_path):
    backbone = read_backbone(checkpoints['video'])
    cache = Cache.of(tmp_path, backbone.key, (2, 3), True)
    assert extract(backbone, videos, cache, views=(2, 3), has_tokens=True, batch_size=4) == {}
    forward = create_forward(backbone.model, SPEC)
    for video in videos:
        found = cache.read(video)
        assert found['tokens'].shape == (6, 2, 4, 16) and found['tokens'].dtype == np.float16
        with open_video(video.video_path) as file:
            clips = [read_view(file, SPEC, view=i, num_views=2, num_crops=3) for i in range(2)]
        expected = forward(backbone.variables, np.concatenate(clips)).features
        np.testing.assert_allclose(found['vectors'][:, 0], expected, rtol=1e-4, atol=1e-4)


def test_an_image_vit_sees_each_frame_alone(checkpoints, videos, tmp_path):
    backbone = read_backbone(checkpoints['image'], num_frames=5, crop_size=24)
    assert backbone.card.preprocessing.clip_shape == (5, 24, 24)
    cache = Cache.of(tmp_path, backbone.key, (1, 1), True)
    extract(backbone, videos, cache, has_tokens=True)
    found = cache.read(videos[0])
    assert found['vectors'].shape == (1, 5, 32) and found['tokens'].shape == (1, 5, 10, 16)
    tokens = found['tokens'].astype(np.float32)
    expected = np.concatenate([tokens[..., 0, :], tokens[..., 1:, :].mean(2)], axis=-1)
    np.testing.assert_allclose(found['vectors'], expected, atol=2e-2)

    # The same frame five times gives the same vector five times.
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3), np.uint8), 5, 0)
    output = backbone.forward()(backbone.variables, {'rgb': still[None, None]})
    np.testing.assert_allclose(
        output['vectors'][0, 0],
        output['vectors'][0, 0, :1] + np.zeros((5, 1)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_is_there_is_not_computed_again(checkpoints, videos, tmp_path, caplog):
    backbone = read_backbone(checkpoints['video'])
    cache = Cache.of(tmp_path, backbone.key, (1, 1), False)
    extract(backbone, videos, cache)
    times = {video: cache.path(video).stat().st_mtime_ns for video in videos}
    cache.path(videos[0]).write_bytes(cache.path(videos[0]).read_bytes()[:100])  # damaged
    extract(backbone, videos, cache)
    assert [cache.read(video)['vectors'].shape for video in videos] == [(1, 1, 16)] * 3
    assert [cache.path(v).stat().st_mtime_ns == times[v] for v in videos] == [False, True, True]
    whole = bytearray(cache.path(videos[0]).read_bytes())
    whole[200] ^= 1
    cache.path(videos[0]).write_bytes(whole)
    assert cache.read(videos[0]) is None and 'is damaged' in caplog.text


def test_key_follows_weights_and_clips(checkpoints, tmp_path):
    keys = {
        read_backbone(checkpoints['video']).key,
        read_backbone(write_model(tmp_path / 'other', KEYWORDS, SPEC, seed=1)).key,
        read_backbone(checkpoints['image']).key,
        read_backbone(checkpoints['image'], num_frames=8).key,
        read_backbone(checkpoints['image'], crop_size=16).key,
    }
    assert len(keys) == 5
    assert read_backbone(checkpoints['video']).key in keys


def test_a_changed_video_has_no_features(videos, tmp_path):
    path = tmp_path / 'a.mp4'
    shutil.copy(videos[0].video_path, path)
    video, cache = LabeledVideo(str(path), 0), Cache(tmp_path, 'key')
    cache.write(video, {'vectors': np.zeros(3)})
    assert cache.read(video) is not None
    assert cache.read(LabeledVideo(str(path), 0, start_sec=0.1)) is None
    os.utime(path, ns=(1, 1))
    assert cache.read(video) is None


def test_a_broken_video_is_reported_and_left_out(checkpoints, videos, tmp_path):
    broken = LabeledVideo(str(tmp_path / 'broken.mp4'), 0)
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    backbone = read_backbone(checkpoints['video'])
    cache = Cache.of(tmp_path / 'out', backbone.key, (2, 1), False)
    failures = extract(backbone, [broken, *videos], cache, views=(2, 1), batch_size=3)
    assert list(failures) == [broken.video_path] and cache.read(broken) is None
    cache.write_index(tmp_path / 'out/index.csv', [broken, *videos])
    with (tmp_path / 'out/index.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['video_path'] for row in rows] == [video.video_path for video in videos]
    with np.load(tmp_path / 'out' / rows[0]['features']) as file:
        assert file['vectors'].shape == (2, 1, 16)


def test_folders_and_lists_name_videos(synthetic_folder, tmp_path):
    assert len(list_videos(str(synthetic_folder))) == 40
    (tmp_path / 'list.csv').write_text('video_path,start_sec\n/a.mp4,\n')
    with pytest.raises(UserError, match='none of its videos exists'):
        list_videos(str(tmp_path / 'list.csv'))
    with pytest.raises(UserError, match='does not exist'):
        list_videos(str(tmp_path / 'nothing'))
    (tmp_path / 'list.txt').write_text('a.mp4')
    with pytest.raises(UserError, match=r'must be a \.csv'):
        list_videos(str(tmp_path / 'list.txt'))


def test_clips_of_a_video_model_cannot_be_chosen(checkpoints):
    with pytest.raises(UserError, match='only the frames and pixels of an image ViT'):
        read_backbone(checkpoints['video'], num_frames=3)
    with pytest.raises(UserError, match='patches of 8 pixels: take 24'):
        read_backbone(checkpoints['image'], crop_size=23)


def test_command_writes_the_index(checkpoints, synthetic_folder, tmp_path):
    flags = {
        'checkpoint': checkpoints['image'],
        'data': synthetic_folder / 'val.csv',
        'output': tmp_path,
        'crop_size': 16,
        'frames': 2,
        'num_workers': 0,
        'batch_size': 4,
    }
    words = [f'--{name}={value}' for name, value in flags.items()]
    done = run_python([sys.executable, '-m', 'vivit_jax.features', *words])
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / 'index.csv').read_text().splitlines()) == 9
