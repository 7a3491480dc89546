import json

import pytest

from vivit_jax.augment.policy import Augmentation
from vivit_jax.config import load
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.video.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ('in_steps', 'in_epochs', 'expected'),
    [
        (None, None, 0),
        (7, None, 7),
        (0, None, 0),
        (None, 3.0, 30),
        (None, 0.25, 2),  # 2.5 to even
        (None, 0.16, 2),  # 1.6
        (None, 0.0, 0),
    ],
)
@pytest.mark.parametrize('name', ['num', 'warmup', 'checkpoint_every'])
def test_steps_follow_the_key_that_is_set(name, in_steps, in_epochs, expected):
    section = default_config().train
    section[f'{name}_steps'], section[f'{name}_epochs'] = in_steps, in_epochs
    steps = load.steps(section, name, steps_per_epoch=10)
    assert (type(steps), steps) == (int, expected)


def test_warmup_can_be_a_part_of_the_training():
    section = default_config().train
    section.warmup_fraction = 0.05
    assert load.steps(section, 'warmup', 10, num_steps=640) == 32
    assert load.steps(section, 'warmup', 10, num_steps=2) == 0
    section.warmup_steps = 3
    with pytest.raises(UserError, match=r'warmup_steps=3 and warmup_fraction=0\.05 are both set'):
        load.steps(section, 'warmup', 10, num_steps=640)


def test_steps_and_epochs_together_are_an_error():
    section = default_config().train
    section.update(warmup_steps=0, warmup_epochs=2.0)
    with pytest.raises(UserError, match=r'warmup_steps=0 and warmup_epochs=2\.0 are both set'):
        load.steps(section, 'warmup', 10)


@pytest.mark.parametrize('values', [{'num_steps': -1}, {'num_epochs': -0.5}])
def test_negative_durations_are_an_error(values):
    section = default_config().train
    section.update(values)
    with pytest.raises(UserError, match=r'num_\w+=-[\d.]+ is negative'):
        load.steps(section, 'num', 10)


@pytest.mark.parametrize('section', ['', 'model', 'data', 'data.synthetic', 'train', 'eval'])
def test_unknown_key_is_an_error(section):
    config = default_config()
    for name in filter(None, section.split('.')):
        config = config[name]
    with pytest.raises((AttributeError, KeyError), match='nothing_such'):
        config.nothing_such = 1
    with pytest.raises(KeyError, match='nothing_such'):
        config.update(nothing_such=1)


@pytest.mark.parametrize(
    ('section', 'key', 'value'),
    [
        ('train', 'batch_size', '64'),
        ('train', 'num_epochs', 'many'),
        ('model', 'num_layers', 1.5),
        ('model', 'tubelet_size', 2),
        ('preprocessing', 'sampling', 3),
    ],
)
def test_value_of_another_type_is_an_error(section, key, value):
    with pytest.raises(TypeError):
        default_config()[section][key] = value


def test_default_preprocessing_is_that_of_its_class():
    assert load.preprocessing(default_config()) == Preprocessing()


def test_preprocessing_mistake_is_a_user_error():
    config = default_config()
    config.preprocessing.short_side = 100
    with pytest.raises(UserError, match=r'preprocessing\.short_side=100 .*crop_size=224'):
        load.preprocessing(config)


def test_augmentation_takes_what_happens_on_the_device():
    config = default_config()
    config.augment.update(flip=0.5, color_jitter=0.8, color_drop=1.0)
    assert load.augmentation(config) == Augmentation(0.5, 0.8, 1.0)


@pytest.mark.parametrize(
    ('section', 'key', 'value', 'limit'),
    [
        ('augment', 'flip', -0.1, 'from 0 to 1'),
        ('augment', 'color_drop', 1.1, 'from 0 to 1'),
        ('train', 'batch_size', 0, 'at least 1'),
        ('train', 'learning_rate', float('nan'), 'at least 0'),
        ('train', 'keep_last', 0, 'at least 1'),
        ('data', 'num_workers', -1, 'at least 0'),
    ],
)
def test_number_out_of_range_is_an_error(section, key, value, limit):
    config = default_config()
    load.check_ranges(config)
    config[section][key] = value
    with pytest.raises(UserError, match=rf'{section}\.{key}={value} must be {limit}'):
        load.check_ranges(config)


@pytest.mark.parametrize(
    ('scale_jitter', 'resized_area'), [(None, None), ((0.9, 1.33), None), (None, (0.3, 1.0))]
)
def test_random_crop_takes_its_ranges(scale_jitter, resized_area):
    config = default_config()
    config.augment.update(scale_jitter=scale_jitter, resized_area=resized_area)
    crop = load.random_crop(config, Preprocessing())
    assert (crop.scale_jitter, crop.resized_area) == (scale_jitter, resized_area)
    assert crop.spec == Preprocessing()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (
            {'scale_jitter': (1.0, 1.0), 'resized_area': (0.5, 1.0)},
            'augment.scale_jitter and augment.resized_area exclude each other',
        ),
        ({'scale_jitter': (1.3, 0.9)}, 'augment.scale_jitter=(1.3, 0.9) must be (min, max)'),
        ({'scale_jitter': (0.0, 1.0)}, 'augment.scale_jitter=(0.0, 1.0) must be (min, max)'),
        ({'resized_area': (0.5,)}, 'augment.resized_area=(0.5,) must be (min, max)'),
        ({'resized_area': (0.5, 1.2)}, 'augment.resized_area=(0.5, 1.2) is a part of the frame'),
    ],
)
def test_bad_random_crop_is_an_error_that_names_the_key(values, message):
    config = default_config()
    config.augment.update(values)
    with pytest.raises(UserError) as error:
        load.random_crop(config, Preprocessing())
    assert message in str(error.value)


def test_model_keywords_are_the_keys_that_are_set():
    config = default_config()
    config.model.update(size='B/16x2', num_layers=3, temporal_num_layers=0)
    expected = {'name': 'vivit_fe', 'size': 'B/16x2', 'num_layers': 3, 'temporal_num_layers': 0}
    assert load.model_keywords(config) == expected


@pytest.mark.parametrize('num_classes', [None, 5, {'verb': 97, 'noun': 300}])
def test_classes_are_a_number_or_one_per_head(num_classes):
    config = default_config()
    config.model.update(num_classes={'verb': 1})
    config.model.num_classes = num_classes
    load.check_ranges(config)
    expected = {} if num_classes is None else {'num_classes': num_classes}
    assert load.model_keywords(config) == {'name': 'vivit_fe', **expected}
    assert json.loads(json.dumps(load.flatten(config))) == load.flatten(config)


def test_differences_name_the_head():
    old, new = default_config(), default_config()
    old.model.num_classes = {'verb': 97, 'noun': 300}
    new.model.num_classes = {'verb': 97, 'noun': 301}
    lines = load.differences(load.flatten(old), load.flatten(new))
    assert lines == ([], ['model.num_classes.noun: 300 -> 301'])
    new.model.num_classes = 97
    assert 'model.num_classes: None -> 97' in load.differences(*map(load.flatten, (old, new)))[1]


@pytest.mark.parametrize('num_classes', [0, 2.5, 'many', {'verb': 97, 'noun': 0}, {'verb': None}])
def test_unusable_classes_are_an_error(num_classes):
    config = default_config()
    config.model.num_classes = num_classes
    with pytest.raises(UserError, match=r'model\.num_classes=.* must be a whole number from 1'):
        load.check_ranges(config)


def test_flat_config_has_every_key_once_and_survives_json():
    config = default_config()
    config.augment.scale_jitter = (0.9, 1.3)
    flat = load.flatten(config)
    assert flat['train.batch_size'] == 64
    assert flat['data.synthetic.num_train'] == config.data.synthetic.num_train
    assert flat['augment.scale_jitter'] == [0.9, 1.3]
    assert flat['model.size'] is None
    assert json.loads(json.dumps(flat)) == flat


def test_equal_configs_have_no_differences():
    flat = load.flatten(default_config())
    assert load.differences(flat, dict(flat)) == ([], [])


@pytest.mark.parametrize(
    ('key', 'value', 'may_differ'),
    [
        ('data.num_workers', 7, True),
        ('data.root', '/videos', True),
        ('eval.views', '1x1', True),
        ('eval.batch_size', 3, True),
        ('train.keep_last', 5, True),
        ('train.checkpoint_every_steps', 10, True),
        ('train.batch_size', 3, False),
        ('train.num_steps', 10, False),  # from None
        ('data.train_csv', 'a.csv', False),
        ('model.num_layers', 3, False),
        ('preprocessing.num_frames', 8, False),
        ('augment.flip', 0.5, False),
        ('seed', 1, False),
    ],
)
def test_difference_is_allowed_only_where_it_changes_no_result(key, value, may_differ):
    old = load.flatten(default_config())
    line = f'{key}: {old[key]!r} -> {value!r}'
    expected = ([line], []) if may_differ else ([], [line])
    assert load.differences(old, {**old, key: value}) == expected


def test_training_may_become_longer_but_not_shorter():
    short, long = {'train.num_epochs': 3.0}, {'train.num_epochs': 4.5}
    assert load.differences(short, long) == (['train.num_epochs: 3.0 -> 4.5'], [])
    assert load.differences(long, short) == (
        [],
        ['train.num_epochs: 4.5 -> 3.0, and may only grow'],
    )


def test_allowed_key_does_not_allow_keys_that_begin_like_it():
    _, forbidden = load.differences({'evaluation.x': 1, 'data.rooted': 2}, {})
    assert forbidden == ['data.rooted: 2 -> None', 'evaluation.x: 1 -> None']


def test_key_that_an_old_config_lacks_is_compared_with_none():
    assert load.differences({}, {'train.new': None}) == ([], [])
    assert load.differences({}, {'train.new': 1}) == ([], ['train.new: None -> 1'])


def test_classes_come_from_the_config_or_its_dataset():
    config = default_config('vivit_fe')
    config.data.source = 'ssv2'
    assert load.guess_classes(config) == 174
    config.model.num_classes = 5
    assert load.guess_classes(config) == 5


@pytest.mark.parametrize(
    ('schedule', 'decay_epochs', 'expected'),
    [
        (None, (), 'cosine'),
        (None, (20, 40), 'step'),
        ('step', (20, 40), 'step'),
        ('linear', (), 'linear'),
        ('constant', (), 'constant'),
        ('cosine', (), 'cosine'),
    ],
)
def test_schedule_follows_from_its_keys(schedule, decay_epochs, expected):
    config = default_config()
    config.train.update(schedule=schedule, decay_epochs=decay_epochs)
    assert load.schedule_kind(config.train) == expected


@pytest.mark.parametrize(
    ('schedule', 'decay_epochs', 'message'),
    [
        ('step', (), 'needs the epochs'),
        ('cosine', (20,), r"schedule='cosine' and train.decay_epochs=\(20,\) contradict"),
        ('exponential', (), "'exponential' must be one of cosine, linear, constant, step"),
    ],
)
def test_schedules_that_contradict_their_keys_are_errors(schedule, decay_epochs, message):
    config = default_config()
    config.train.update(schedule=schedule, decay_epochs=decay_epochs)
    with pytest.raises(UserError, match=message):
        load.schedule_kind(config.train)
