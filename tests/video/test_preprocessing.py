import dataclasses
import json

import pytest

from vivit_jax.video.preprocessing import Preprocessing


def test_defaults_are_the_original_vivit():
    spec = Preprocessing()
    assert (spec.num_frames, spec.frame_stride) == (32, 2)
    assert (spec.short_side, spec.crop_size) == (256, 224)
    assert spec.value_range == (-1, 1)
    assert (spec.sampling, spec.interpolation, spec.color_order) == ('strided', 'bilinear', 'rgb')


@pytest.mark.parametrize('name', ['sampling', 'short_video', 'interpolation', 'color_order'])
def test_unknown_choice_raises(name):
    with pytest.raises(ValueError, match=rf"preprocessing\.{name}='middle' must be one of"):
        Preprocessing(**{name: 'middle'})


@pytest.mark.parametrize('name', ['num_frames', 'num_units', 'frame_stride', 'crop_size'])
@pytest.mark.parametrize('value', [0, -1])
def test_size_below_one_raises(name, value):
    with pytest.raises(ValueError, match=rf'preprocessing\.{name}={value} must be at least 1'):
        Preprocessing(**{name: value})


def test_crop_larger_than_frame_raises():
    assert Preprocessing(short_side=32, crop_size=32).crop_size == 32
    with pytest.raises(ValueError, match=r'short_side=31 must be at least crop_size=32'):
        Preprocessing(short_side=31, crop_size=32)


def test_only_units_have_a_number():
    spec = Preprocessing(sampling='units', num_units=4, num_frames=8)
    assert spec.clip_shape == (32, 224, 224)
    with pytest.raises(ValueError, match=r"num_units=4 needs .*'units', which is 'segments'"):
        Preprocessing(sampling='segments', num_units=4)


def test_range_of_no_extent_raises():
    with pytest.raises(ValueError, match=r'value_range=\(1, 1\) must be two numbers'):
        Preprocessing(value_range=(1, 1))


def test_spec_survives_json():
    # Checkpoints keep it as JSON, which turns tuples into lists.
    spec = Preprocessing(num_frames=8, interpolation='area', value_range=(0, 1), color_order='bgr')
    restored = Preprocessing(**json.loads(json.dumps(dataclasses.asdict(spec))))
    assert restored == spec
    assert hash(restored) == hash(spec)


def test_spec_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Preprocessing().num_frames = 4
