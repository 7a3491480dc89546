import numpy as np
import pytest

from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.sampling import clip_span, sample_train_frames, sample_view_frames


def _strided(num_frames: int, frame_stride: int, short_video: str = 'repeat_last') -> Preprocessing:
    return Preprocessing(num_frames=num_frames, frame_stride=frame_stride, short_video=short_video)


def _segments(num_frames: int) -> Preprocessing:
    return Preprocessing(num_frames=num_frames, sampling='segments')


def _segment_bounds(length: int, num_segments: int) -> list[tuple[int, int]]:
    # Equation of the frame sampling table: [⌊iN/T⌋, max(⌊iN/T⌋+1, ⌊(i+1)N/T⌋)).
    return [
        (
            i * length // num_segments,
            max(i * length // num_segments + 1, (i + 1) * length // num_segments),
        )
        for i in range(num_segments)
    ]


# length, num_frames, stride, short_video, the only possible clip
ONE_CLIP = [
    (4, 4, 1, 'repeat_last', [0, 1, 2, 3]),
    (7, 4, 2, 'repeat_last', [0, 2, 4, 6]),
    (7, 4, 2, 'loop', [0, 2, 4, 6]),
    (6, 4, 2, 'repeat_last', [0, 2, 4, 5]),
    (6, 4, 2, 'loop', [0, 2, 4, 0]),
    (5, 4, 2, 'loop', [0, 2, 4, 1]),
    (2, 5, 1, 'repeat_last', [0, 1, 1, 1, 1]),
    (2, 5, 1, 'loop', [0, 1, 0, 1, 0]),
    (2, 3, 5, 'loop', [0, 1, 0]),
    (1, 3, 4, 'repeat_last', [0, 0, 0]),
    (1, 3, 4, 'loop', [0, 0, 0]),
    (1, 1, 9, 'repeat_last', [0]),
]


@pytest.mark.parametrize(('length', 'num_frames', 'stride', 'short_video', 'expected'), ONE_CLIP)
def test_clip_of_short_video_is_fixed(length, num_frames, stride, short_video, expected):
    spec = _strided(num_frames, stride, short_video)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        assert sample_train_frames(length, spec, rng).tolist() == expected
    for view in range(3):
        assert sample_view_frames(length, spec, view, 3).tolist() == expected
    assert sample_view_frames(length, spec, 0, 1).tolist() == expected


@pytest.mark.parametrize(
    ('length', 'num_frames', 'stride'), [(9, 3, 2), (8, 4, 2), (12, 5, 1), (6, 1, 7), (10, 2, 8)]
)
def test_random_clips_cover_every_start(length, num_frames, stride):
    spec = _strided(num_frames, stride)
    rng = np.random.default_rng(0)
    clips = [sample_train_frames(length, spec, rng) for _ in range(300)]
    every_clip = {
        frames
        for frames in (tuple(range(s, s + num_frames * stride, stride)) for s in range(length))
        if frames[-1] < length
    }
    assert {tuple(clip.tolist()) for clip in clips} == every_clip


@pytest.mark.parametrize(
    ('length', 'frames'),
    [
        (200, [83, 99, 115]),  # stride 16: it spans 33, and its first frame may be 0 ... 167
        (48, [7, 23, 39]),  # 3 * 16 frames: still 16
        (47, [8, 23, 38]),  # ⌊47 / 3⌋ = 15
        (7, [1, 3, 5]),
        (4, [0, 1, 2]),
        (2, [0, 1, 1]),
    ],
)
def test_short_video_may_lower_the_stride(length, frames):
    spec = _strided(3, 16, 'smaller_stride')
    assert sample_view_frames(length, spec, 0, 1).tolist() == frames
    drawn = sample_train_frames(length, spec, np.random.default_rng(0))
    assert np.diff(drawn).tolist() == np.diff(frames).tolist()


@pytest.mark.parametrize(('num_frames', 'stride', 'span'), [(1, 5, 1), (4, 1, 4), (32, 2, 63)])
def test_clip_span_counts_first_and_last(num_frames, stride, span):
    assert clip_span(_strided(num_frames, stride)) == span


@pytest.mark.parametrize(
    ('length', 'num_views', 'starts'),
    [
        # A clip of 3 frames at stride 2 spans 5: the last start is length - 5.
        (11, 1, [3]),
        (12, 1, [3]),
        (11, 2, [0, 6]),
        (11, 3, [0, 3, 6]),
        (11, 4, [0, 2, 4, 6]),
        (12, 4, [0, 2, 5, 7]),
        (6, 4, [0, 0, 1, 1]),
        (105, 5, [0, 25, 50, 75, 100]),
    ],
)
def test_views_are_spread_evenly(length, num_views, starts):
    spec = _strided(3, 2)
    clips = [sample_view_frames(length, spec, view, num_views) for view in range(num_views)]
    assert [clip.tolist() for clip in clips] == [[s, s + 2, s + 4] for s in starts]


@pytest.mark.parametrize(
    ('length', 'num_frames'), [(40, 4), (41, 8), (8, 8), (9, 8), (3, 8), (1, 5), (7, 1)]
)
def test_segments_give_one_frame_each(length, num_frames):
    spec = _segments(num_frames)
    bounds = _segment_bounds(length, num_frames)
    rng = np.random.default_rng(1)
    clips = [sample_train_frames(length, spec, rng) for _ in range(400)]
    views = [sample_view_frames(length, spec, view, 3) for view in range(3)]
    for clip in [*clips, *views]:
        assert len(clip) == num_frames
        assert all(low <= frame < high for frame, (low, high) in zip(clip, bounds, strict=True))
        assert all(np.diff(clip) >= 0)
        assert clip[-1] < length
    drawn = [set(places) for places in np.array(clips).T.tolist()]
    assert drawn == [set(range(low, high)) for low, high in bounds]


def test_segments_are_drawn_independently():
    rng = np.random.default_rng(1)
    clips = np.array([sample_train_frames(80, _segments(4), rng) for _ in range(1000)])
    assert np.abs(np.corrcoef(clips.T) - np.eye(4)).max() < 0.1


@pytest.mark.parametrize(
    ('length', 'num_views', 'expected'),
    [
        (40, 1, [[5, 15, 25, 35]]),
        (40, 2, [[2, 12, 22, 32], [7, 17, 27, 37]]),
        (4, 1, [[0, 1, 2, 3]]),
        (2, 2, [[0, 0, 1, 1], [0, 0, 1, 1]]),
    ],
)
def test_segment_views_are_middles(length, num_views, expected):
    clips = [sample_view_frames(length, _segments(4), view, num_views) for view in range(num_views)]
    assert [clip.tolist() for clip in clips] == expected


def _units(num_units: int, num_frames: int, stride: int, short_video='repeat_last'):
    return Preprocessing(
        num_frames=num_frames,
        frame_stride=stride,
        sampling='units',
        num_units=num_units,
        short_video=short_video,
    )


# length, units, frames, stride, temporal views, their clips
UNIT_VIEWS = [
    # Sections of 10 frames, windows of 2 * 3 = 6: starts 0 ... 4.
    (20, 2, 2, 3, 1, [[2, 5, 12, 15]]),
    (20, 2, 2, 3, 2, [[0, 3, 10, 13], [4, 7, 14, 17]]),
    (20, 2, 2, 3, 3, [[0, 3, 10, 13], [2, 5, 12, 15], [4, 7, 14, 17]]),
    # Sections of 3, 3 and 4 frames.
    (10, 3, 2, 1, 1, [[0, 1, 3, 4, 7, 8]]),
    (10, 3, 3, 1, 2, [[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5, 7, 8, 9]]),
    # Sections shorter than a window: from their start, into the next one, to the last frame.
    (8, 2, 3, 2, 1, [[0, 2, 4, 4, 6, 7]]),
    (2, 4, 2, 1, 1, [[0, 1, 0, 1, 1, 1, 1, 1]]),
    (1, 2, 2, 2, 2, [[0, 0, 0, 0]] * 2),
]


@pytest.mark.parametrize(
    ('length', 'num_units', 'num_frames', 'stride', 'num_views', 'expected'), UNIT_VIEWS
)
def test_views_of_units(length, num_units, num_frames, stride, num_views, expected):
    spec = _units(num_units, num_frames, stride)
    clips = [sample_view_frames(length, spec, view, num_views) for view in range(num_views)]
    assert [clip.tolist() for clip in clips] == expected


def test_short_units_may_start_over():
    assert sample_view_frames(8, _units(2, 3, 2, 'loop'), 0, 1).tolist() == [0, 2, 4, 4, 6, 0]


@pytest.mark.parametrize(
    ('length', 'num_units', 'num_frames', 'stride'), [(40, 4, 2, 3), (41, 4, 2, 3), (33, 3, 5, 2)]
)
def test_every_unit_is_drawn_from_its_section(length, num_units, num_frames, stride):
    spec, rng = _units(num_units, num_frames, stride), np.random.default_rng(0)
    clips = np.array([sample_train_frames(length, spec, rng) for _ in range(500)])
    units = clips.reshape(-1, num_units, num_frames)
    assert np.all(np.diff(units) == stride)
    for unit in range(num_units):
        low, high = (i * length // num_units for i in (unit, unit + 1))
        assert set(units[:, unit, 0]) == set(range(low, high - num_frames * stride + 1))
    assert np.abs(np.corrcoef(units[:, :, 0].T) - np.eye(num_units)).max() < 0.15


def test_one_unit_at_stride_one_is_a_strided_clip():
    unit, strided = _units(1, 5, 1), _strided(5, 1)
    for length in (1, 4, 5, 6, 23):
        for view in range(3):
            one, other = (sample_view_frames(length, spec, view, 3) for spec in (unit, strided))
            assert one.tolist() == other.tolist()
        one, other = (
            sample_train_frames(length, spec, np.random.default_rng(7)) for spec in (unit, strided)
        )
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize(
    'spec', [_strided(8, 3), _segments(8), _units(2, 4, 3)], ids=['strided', 'segments', 'units']
)
def test_same_seed_draws_same_clip(spec):
    def draw(seed: int) -> list:
        rng = np.random.default_rng(seed)
        return [sample_train_frames(200, spec, rng).tolist() for _ in range(5)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
