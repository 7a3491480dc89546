import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.loader import Workers, view_batches
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.evaluation.evaluator import Evaluator
from vivit_jax.layers.tokens import ModelOutput
from vivit_jax.parallel.mesh import create_mesh
from vivit_jax.video.preprocessing import Preprocessing

SPEC = Preprocessing(num_frames=2, frame_stride=2, short_side=24, crop_size=16)


def mean_colors(variables, pixels):
    """A model with three "logits" that depend on every pixel of a view."""
    logits = pixels['rgb'].astype(jnp.float32).mean((-4, -3, -2)) * variables['scale']
    return ModelOutput(logits=logits, features=logits)


@pytest.fixture
def source(synthetic_folder, tmp_path):
    rows = [LabeledVideo(str(synthetic_folder / f'val/{i:05d}.mp4'), label=i % 3) for i in range(5)]
    broken = tmp_path / 'broken.mp4'
    broken.write_bytes(b'no video')
    return VideoFiles([*rows[:3], LabeledVideo(str(broken), label=0), *rows[3:]])


def evaluate(source, views, batch_size, **kwargs):
    evaluator = Evaluator(mean_colors, create_mesh(), SPEC, batch_size, Workers())
    return evaluator({'scale': jnp.float32(0.1)}, source, views, **kwargs)


@pytest.mark.parametrize('batch_size', [1, 4, 50])
def test_every_view_lies_in_its_place(source, batch_size):
    results = evaluate(source, (2, 3), batch_size)
    assert results.logits.shape == (6, 6, 3)
    batches = view_batches(source, SPEC, views=(2, 3), batch_size=1)
    for batch in batches:
        video, view = batch['video_id'][0], batch['view'][0]
        expected = batch['rgb'][0].mean((1, 2, 3)) * 0.1
        np.testing.assert_allclose(
            results.logits[video, 3 * view : 3 * view + 3], expected, rtol=1e-5
        )
    np.testing.assert_array_equal(results.labels, [0, 1, 2, 0, 0, 1])


def test_views_of_a_video_differ(source):
    logits = evaluate(source, (2, 3), 4).logits[0]
    assert len(np.unique(logits.round(4), axis=0)) == 6


def test_broken_video_is_wrong_and_named(source):
    results = evaluate(source, (1, 1), 4)
    assert list(results.failures) == [3] and 'broken.mp4' in results.failures[3]
    right = (results.logits[:, 0].argmax(1) == results.labels) & (np.arange(6) != 3)
    assert results.metrics('logits')['acc1'] == pytest.approx(right.mean())


def test_evaluation_can_be_stopped(source):
    assert evaluate(source, (1, 1), 2, stop=lambda: True) is None


def two_heads(variables, rgb):
    logits = mean_colors(variables, rgb).logits
    return ModelOutput(logits={'verb': logits, 'noun': -logits[..., :2]}, features=logits)


def test_every_head_has_its_logits_and_metrics(source):
    rows = [
        dataclasses.replace(row, label={'verb': row.label, 'noun': i % 2})
        for i, row in enumerate(source.videos)
    ]
    evaluator = Evaluator(two_heads, create_mesh(), SPEC, 4, Workers())
    results = evaluator({'scale': jnp.float32(0.1)}, VideoFiles(rows), (2, 3))
    alone = evaluate(source, (2, 3), 4)
    np.testing.assert_array_equal(results.logits['verb'], alone.logits)
    np.testing.assert_array_equal(results.logits['noun'], -alone.logits[..., :2])
    assert list(results.labels) == ['verb', 'noun']
    np.testing.assert_array_equal(results.labels['noun'], [0, 1, 0, 1, 0, 1])
    assert list(results.failures) == [3]

    # Each head is merged over its views before the product is taken.
    probabilities = {
        head: (np.exp(x) / np.exp(x).sum(-1, keepdims=True)).mean(1)
        for head, x in results.logits.items()
    }
    product = np.einsum('vi,vj->vij', probabilities['verb'], probabilities['noun']).reshape(6, 6)
    right = product.argmax(1) == 2 * results.labels['verb'] + results.labels['noun']
    metrics = results.metrics('probabilities')
    assert metrics['acc1'] == pytest.approx(np.mean(right & (np.arange(6) != 3)))
    for name, value in alone.metrics('probabilities').items():
        assert metrics[f'verb/{name}'] == pytest.approx(value)
