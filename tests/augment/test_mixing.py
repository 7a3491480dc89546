import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vivit_jax.augment.mixing import mix

KEY = jax.random.key(0)
BOTH = {'mixup_alpha': 0.3, 'cutmix_alpha': 1.0}


def _batch(num_clips=5, classes=4, frame=(7, 9)):
    rng = np.random.default_rng(0)
    clips = {
        'rgb': rng.random((num_clips, 2, *frame, 3), np.float32),
        'depth': 5000 * rng.random((num_clips, 2, *frame, 1), np.float32),
    }
    return clips, np.eye(classes, dtype=np.float32)[rng.integers(classes, size=num_clips)]


def _mix(key, clips, targets, mixup_alpha=0.0, cutmix_alpha=0.0):
    mixed = jax.jit(mix, static_argnums=(3, 4))(key, clips, targets, mixup_alpha, cutmix_alpha)
    return jax.tree.map(np.asarray, mixed)


def test_clips_of_one_video_are_mixed_with_another():
    clips, targets = _batch(6)
    mixed, _ = jax.jit(mix, static_argnums=(3, 4, 5))(KEY, clips, targets, 1.0, 0.0, 2)
    for i in range(6):
        own, partner = (clips['rgb'][j].ravel() for j in (i, i - 2))
        weight = np.dot(mixed['rgb'][i].ravel() - partner, own - partner) / np.sum(
            (own - partner) ** 2
        )
        assert 0 < weight < 1
        np.testing.assert_allclose(
            mixed['rgb'][i].ravel(), weight * own + (1 - weight) * partner, atol=1e-5
        )


def _weights(key, num_clips, frame=(7, 9), **alphas):
    """The weights of each clip in a mixture, by pixel [b h w] and in the targets [b].

    Every clip is mixed with a clip of the other parity. If only even clips are 1, mixtures of even
    clips show their own weight; if only odd clips are 1, mixtures of odd clips do. No two targets
    have a class in common.
    """
    even = np.arange(num_clips) % 2 == 0
    clips = {
        'even': np.broadcast_to(even[:, None, None, None, None], (num_clips, 1, *frame, 1)),
        'odd': np.broadcast_to(~even[:, None, None, None, None], (num_clips, 1, *frame, 1)),
    }
    clips = jax.tree.map(np.float32, clips)
    mixed, targets = _mix(key, clips, np.eye(num_clips, dtype=np.float32), **alphas)
    own = np.where(even[:, None, None], *(mixed[name][:, 0, ..., 0] for name in ('even', 'odd')))
    return own, np.diag(targets)


@pytest.mark.parametrize(
    'alphas', [{'mixup_alpha': 0.1}, {'mixup_alpha': 1.0}, {'cutmix_alpha': 1.0}, BOTH]
)
def test_mixture_equals_numpy_formula(alphas):
    clips, targets = _batch(6)
    own, share = _weights(KEY, 6, **alphas)
    mixed_clips, mixed_targets = _mix(KEY, clips, targets, **alphas)
    for mixed, x, weight, scale in (
        (mixed_clips['rgb'], clips['rgb'], own[:, None, :, :, None], 1),
        (mixed_clips['depth'], clips['depth'], own[:, None, :, :, None], 5000),
        (mixed_targets, targets, share[:, None], 1),
    ):
        expected = [weight[i] * x[i] + (1 - weight[i]) * x[i - 1] for i in range(6)]
        assert mixed.dtype == np.float32
        np.testing.assert_allclose(mixed, expected, atol=1e-6 * scale)


def test_mixing_treats_all_heads_alike():
    clips, targets = _batch()
    heads = {'verb': targets, 'noun': np.pad(targets[:, ::-1], ((0, 0), (2, 1)))}
    _, mixed = _mix(KEY, clips, heads, **BOTH)
    assert mixed.keys() == heads.keys()
    np.testing.assert_array_equal(mixed['verb'], _mix(KEY, clips, targets, **BOTH)[1])
    np.testing.assert_array_equal(mixed['noun'][:, 2:-1], mixed['verb'][:, ::-1])


@pytest.mark.parametrize('alphas', [{'mixup_alpha': 0.1}, {'cutmix_alpha': 5.0}, BOTH])
def test_mixed_targets_are_probabilities(alphas):
    clips, targets = _batch(200)
    mixed_clips, mixed = _mix(KEY, clips, targets, **alphas)
    np.testing.assert_allclose(np.sum(mixed, axis=1), 1, atol=1e-6)
    assert np.min(mixed) >= 0
    assert np.min(mixed_clips['rgb']) >= 0 and np.max(mixed_clips['rgb']) <= 1


@pytest.mark.parametrize('alpha', [0.1, 0.3, 5.0])
def test_weights_of_mixup_follow_the_beta_distribution(alpha):
    own, share = _weights(KEY, 1000, (1, 1), mixup_alpha=alpha)
    np.testing.assert_array_equal(own[:, 0, 0], share)
    # Not at the ends, where float32 has no room for the infinite density of a small alpha.
    points = np.linspace(0.01, 0.99, 50)
    share_below = (share[:, None] < points).mean(0)
    assert np.abs(share_below - scipy.stats.beta(alpha, alpha).cdf(points)).max() < 0.06
    assert abs(np.corrcoef(share[1:], share[:-1])[0, 1]) < 0.15


def _boxes(own):
    """Rows and columns [b n] of the box of each clip where `own` is 0; 1 around it."""
    assert set(np.unique(own)) <= {0, 1}
    rows, columns = (own == 0).any(2), (own == 0).any(1)
    np.testing.assert_array_equal(own == 0, rows[:, :, None] & columns[:, None])
    for line in (rows, columns):
        assert (np.abs(np.diff(line)).sum(1) <= 2).all()  # in one piece
    return rows, columns


def test_cutmix_pastes_a_box_and_labels_by_its_area():
    own, share = _weights(KEY, 300, (10, 14), cutmix_alpha=1.0)
    rows, columns = _boxes(own)
    np.testing.assert_allclose(share, 1 - rows.sum(1) * columns.sum(1) / 140, atol=1e-6)
    assert len(np.unique(share)) > 30


def test_boxes_of_cutmix_have_the_shape_of_the_frame_and_a_uniform_area():
    own, _ = _weights(KEY, 600, (30, 60), cutmix_alpha=1.0)
    rows, columns = _boxes(own)
    # Of boxes that are wholly inside, height is to width as the frame's, up to rounding.
    inside = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])
    height, width = rows[inside].sum(1), columns[inside].sum(1)
    assert inside.sum() > 60
    assert (np.abs(2 * height - width) <= 2).all()
    # A part u of the frame, uniform, with a uniform centre in it; along one side it covers
    # sqrt(u), and of that on average sqrt(u) - u / 4 is inside.
    u = np.linspace(0, 1, 10001)
    expected = ((np.sqrt(u) - u / 4) ** 2).mean()
    covered = (own == 0).mean()
    assert abs(covered - expected) < 0.04


def test_each_clip_draws_mixup_or_cutmix():
    own, _ = _weights(KEY, 400, (8, 8), mixup_alpha=5.0, cutmix_alpha=5.0)
    is_mixup = (own == own[:, :1, :1]).all((1, 2)) & (own[:, 0, 0] > 0) & (own[:, 0, 0] < 1)
    _boxes(own[~is_mixup])
    assert abs(is_mixup.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)


@pytest.mark.parametrize('alphas', [{'mixup_alpha': 0.3}, {'cutmix_alpha': 1.0}, BOTH])
def test_mixing_follows_its_key(alphas):
    clips, targets = _batch()
    first, again, other = (
        _mix(jax.random.key(seed), clips, targets, **alphas)[0]['rgb'] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    plain = mix(jax.random.key(1), clips, targets, **{**dict.fromkeys(BOTH, 0.0), **alphas})
    np.testing.assert_allclose(plain[0]['rgb'], first, atol=1e-6)


def test_mixing_before_and_after_normalisation_is_the_same():
    clips, targets = _batch()
    before = 2 * _mix(KEY, clips, targets, **BOTH)[0]['rgb'] - 1
    after = _mix(KEY, {'rgb': 2 * clips['rgb'] - 1}, targets, **BOTH)[0]['rgb']
    np.testing.assert_allclose(before, after, atol=1e-6)


@pytest.mark.parametrize(('num_clips', 'alphas'), [(1, BOTH), (5, {})])
def test_single_clip_and_no_alpha_change_nothing(num_clips, alphas):
    clips, targets = _batch(num_clips)
    mixed_clips, mixed_targets = _mix(KEY, clips, targets, **alphas)
    np.testing.assert_allclose(mixed_clips['rgb'], clips['rgb'], atol=1e-6)
    np.testing.assert_allclose(mixed_targets, targets, atol=1e-6)


def test_mixing_is_differentiable_in_the_clip():
    rgb, targets = jnp.asarray(_batch(6)[0]['rgb']), _batch(6)[1]
    gradient = jax.grad(lambda rgb: mix(KEY, {'rgb': rgb}, targets, 0.3, 0.0)[0]['rgb'].sum())(rgb)
    share = _weights(KEY, 6, mixup_alpha=0.3)[1]
    expected = share + 1 - np.roll(share, -1)
    np.testing.assert_allclose(gradient[:, 0, 0, 0, 0], expected, atol=1e-6)
