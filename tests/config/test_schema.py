import math

import pytest

from vivit_jax.augment.policy import Augmentation
from vivit_jax.config import load
from vivit_jax.config.schema import KEYS, config_keys, default_config, find_value
from vivit_jax.errors import UserError
from vivit_jax.models.registry import list_models, model_keywords
from vivit_jax.video.limits import Limits
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import SyntheticVideos

LIMITED = [name for name, key in KEYS.items() if key.low > -math.inf]


@pytest.mark.parametrize('model', list_models())
def test_every_key_has_a_meaning(model):
    for name, key in config_keys(model).items():
        assert key.meaning.strip(), name
        assert '`' not in key.meaning and '\n' not in key.meaning, name


@pytest.mark.parametrize('model', list_models())
def test_config_of_a_model_has_its_keywords_unset_and_no_others(model):
    config = default_config(model)
    assert set(config.model) == {'name', 'size', *model_keywords(model)}
    assert load.model_keywords(config) == {'name': model}
    assert set(load.flatten(config)) == set(config_keys(model))


@pytest.mark.parametrize(
    ('make', 'kind'),
    [
        (load.preprocessing, Preprocessing),
        (load.synthetic_videos, SyntheticVideos),
        (load.augmentation, Augmentation),
        (load.limits, Limits),
    ],
)
def test_default_section_is_the_default_of_its_dataclass(make, kind):
    assert make(default_config()) == kind()


def test_meaning_comes_from_the_docstring_where_fields_may_share_a_line():
    keys = config_keys('vivit_fe')
    assert keys['preprocessing.crop_size'].meaning.startswith('pixels of the square')
    shared = {keys[f'data.synthetic.num_{split}'].meaning for split in ('train', 'val', 'test')}
    assert len(shared) == 1
    # Attributes of the class itself, and of the class that it extends.
    assert 'temporal encoder' in keys['model.temporal_num_layers'].meaning
    assert keys['model.hidden_size'].meaning
    # Several lines become one, and what follows the section is not part of it.
    assert keys['augment.repeats'].meaning.endswith('an epoch then has as many videos fewer')


@pytest.mark.parametrize('name', LIMITED)
def test_default_is_in_range_and_beyond_is_an_error(name):
    key, config = KEYS[name], default_config()
    *path, last = name.split('.')
    section = find_value(config, '.'.join(path))
    load.check_ranges(config)
    kind = key.default if isinstance(key.default, type) else type(key.default)
    beyond = [key.low - 1] + [key.high + 1] * (key.high < math.inf)
    for value in beyond:
        section[last] = kind(value)
        with pytest.raises(UserError, match=rf'^{name}=-?[\d.]+ must be (at least|from)'):
            load.check_ranges(config)
    for limit in {key.low, key.high} - {math.inf}:
        section[last] = kind(limit)
        load.check_ranges(config)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        *((name, value) for name in ('flip', 'color_drop', 'erase') for value in (-0.1, 1.1)),
        *((name, -1) for name in ('randaugment_layers', 'randaugment_magnitude')),
        *((name, -0.1) for name in ('mixup_alpha', 'cutmix_alpha')),
        ('repeats', 0),
        ('flip', math.nan),
    ],
)
def test_augmentation_checks_its_own_range(field, value):
    with pytest.raises(UserError, match=rf'^augment\.{field}={value} must be'):
        Augmentation(**{field: value})


def test_only_keys_that_change_no_result_may_change():
    may_change = {name for name, key in config_keys('ctn').items() if key.may_change}
    of_results = ('model.', 'preprocessing.', 'augment.', 'init.', 'data.synthetic.', 'seed')
    assert not any(name.startswith(of_results) for name in may_change)
    assert all(name in may_change for name in KEYS if name.startswith('eval.'))
