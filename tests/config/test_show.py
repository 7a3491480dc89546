"""The output of `--mode=show`, compared with numbers from other sources."""

import importlib.util
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from python_process import run_python

from vivit_jax.config import load
from vivit_jax.config.schema import config_keys, default_config
from vivit_jax.config.show import count_training_videos, describe
from vivit_jax.errors import UserError
from vivit_jax.models.registry import create_model

ROOT = Path(__file__).parents[2]


def _config(name, arg=''):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'configs' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


def _tables(text):
    """Rows by the title of their table: name to value and explanation."""
    tables = {}
    for paragraph in text.split('\n\n')[1:]:
        title, *lines = paragraph.splitlines()
        rows = (re.split(r' {2,}', line, maxsplit=2) for line in lines)
        tables[title.removeprefix('# ')] = {
            name.removesuffix('*'): (value, *explanation) for name, value, *explanation in rows
        }
    return tables


def test_published_recipe_has_the_papers_cost_and_schedule():
    tables = _tables(describe(_config('kinetics400_fe'), 'configs/kinetics400_fe.py'))
    schedule, cost = tables['Schedule'], tables['Cost']
    assert schedule['training videos'][0] == '246,534'
    assert schedule['epoch'][0] == '3,852 steps'  # 246,534 / 64
    assert schedule['training'] == ('115,560 steps', '30 epochs')
    assert schedule['warm-up'] == ('9,630 steps', '8.33 % of the training')  # 2.5 epochs
    assert schedule['checkpoint every'][0] == schedule['validation every'][0] == '3,852 steps'
    # ViViT, table 2: 115.1 million parameters and 284.4 GFLOPs of a clip, one per multiply-add.
    assert float(cost['parameters'][0].replace(',', '')) == pytest.approx(115.1e6, rel=1e-3)
    clip = float(cost['clip forward'][0].removesuffix(' GMAC')) * 1e9
    assert clip == pytest.approx(284.4e9, rel=0.01)
    step, whole = (
        float(cost[name][0].removesuffix(' FLOPs')) for name in ('training step', 'whole training')
    )
    assert step == pytest.approx(2 * 3 * clip * 64, rel=0.01)
    assert whole == pytest.approx(step * 115_560, rel=0.01)


def test_every_key_stands_once_under_the_origin_of_its_value():
    config = _config('kinetics400_fe')
    config.train.batch_size, config.train.num_epochs = 8, None
    config.train.num_steps = 100
    overrides = {'train.batch_size': 8, 'train.num_epochs': None, 'train.num_steps': 100}
    tables = _tables(describe(config, 'mine.py', overrides))
    origins = ['command line', 'mine.py', 'size B/16x2', 'defaults of vivit_fe', 'defaults']
    assert list(tables) == [*origins, 'Schedule', 'Cost']
    keys = [key for origin in origins for key in tables[origin]]
    assert sorted(keys) == sorted(config_keys('vivit_fe'))
    assert set(tables['command line']) == set(overrides)
    assert tables['command line']['train.num_epochs'][0] == 'None'
    assert tables['mine.py']['train.learning_rate'][0] == '0.05'
    assert tables['mine.py']['model.name'][0] == "'vivit_fe'"
    assert tables['size B/16x2']['model.mlp_dim'][0] == '3072'
    assert tables['size B/16x2']['model.tubelet_size'][0] == '(2, 16, 16)'
    assert tables['defaults of vivit_fe']['model.temporal_num_layers'][0] == '4'
    assert tables['defaults']['train.momentum'][1].startswith('momentum of SGD, or beta 1 of AdamW')


def test_resumed_run_may_change_keys_with_a_star():
    text = describe(_config('demo'), 'demo.py')
    assert re.search(r'^data\.num_workers\* ', text, re.M)
    assert re.search(r'^train\.batch_size ', text, re.M)


@pytest.mark.parametrize(
    ('name', 'arg'),
    [('demo', ''), ('demo', 'blind'), ('demo', 'ctn'), ('epic_kitchens100_fe_large', 'runlocal')],
)
def test_parameters_are_those_of_the_trained_model(name, arg):
    config = _config(name, arg)
    classes = 8
    if len(config.data.label_columns) > 1:
        classes = {'verb': 8, 'noun': 4}
    config.model.num_classes = classes
    shown = _tables(describe(config, name))['Cost']['parameters'][0]
    model = create_model(**load.model_keywords(config))
    clip = np.zeros((1, *load.preprocessing(config).clip_shape, 3), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), clip)['params']
    assert int(shown.replace(',', '')) == sum(x.size for x in jax.tree.leaves(params))


def test_runlocal_counts_in_steps():
    config = _config('ssv2_fe_large', 'runlocal')
    schedule = _tables(describe(config, 'ssv2_fe_large.py:runlocal'))['Schedule']
    assert schedule['training videos'] == ('64', 'data.synthetic.num_train')
    assert schedule['epoch'][0] == '8 steps'
    assert schedule['training'] == ('40 steps',)
    assert schedule['checkpoint every'] == ('20 steps',)


def test_videos_of_a_list_are_its_lines(tmp_path):
    config = _config('custom')
    path = tmp_path / 'train.csv'
    path.write_text('video_path,label\n' + ''.join(f'{i}.mp4,wave\n' for i in range(50)))
    config.data.train_csv = str(path)
    assert count_training_videos(config) == (50, f'lines of {path}')
    schedule = _tables(describe(config, 'custom.py'))['Schedule']
    assert schedule['epoch'][0] == '3 steps'
    assert schedule['training'][0] == '900 steps'
    config.data.val_fraction = 0.2
    assert count_training_videos(config) == (40, f'about 0.8 of 50: lines of {path}')


def test_records_are_counted_in_their_list(tmp_path):
    (tmp_path / 'train.csv').write_text('video_path,label\na.mp4,0\nb.mp4,1\n')
    config = default_config()
    config.data.update(source='records', root=str(tmp_path))
    assert count_training_videos(config)[0] == 2


@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        ({}, 'data.train_csv is not set'),
        ({'root': 'my_videos'}, 'folders are not counted'),
        ({'train_csv': 'lost.csv'}, 'cannot read lost.csv: No such file'),
        ({'source': 'tfrecords', 'train_csv': 'a@8'}, 'TFRecord files do not say'),
        ({'source': 'etri_activity3d'}, 'no size for etri_activity3d'),
    ],
)
def test_missing_number_is_named_and_can_be_given(values, reason):
    config = _config('custom')
    config.data.update(values)
    tables = _tables(describe(config, 'custom.py'))
    shown, explanation = tables['Schedule']['training videos']
    assert shown == 'unknown' and reason in explanation and '--num_videos' in explanation
    assert tables['Schedule']['training'][0] == '300 epochs'
    assert tables['Cost']['whole training'][0] == 'unknown'

    tables = _tables(describe(config, 'custom.py', num_videos=160))
    assert tables['Schedule']['training'] == ('3,000 steps', '300 epochs')
    assert tables['Cost']['whole training'][0].endswith('FLOPs')


def test_steps_are_known_without_the_videos():
    config = _config('custom')
    config.train.update(num_epochs=None, num_steps=1000)
    schedule = _tables(describe(config, 'custom.py'))['Schedule']
    assert schedule['training'] == ('1,000 steps',)
    assert schedule['warm-up'] == ('33 steps', '3.33 % of the training')


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('train.batch_size', 0, 'train.batch_size=0 must be at least 1'),
        ('augment.flip', 2.0, 'augment.flip=2.0 must be from 0 to 1'),
        ('model.num_heads', 5, 'model: num_heads=5 must divide'),
        ('preprocessing.num_frames', 9, 'model: .*9'),
        ('train.num_steps', 7, 'both set'),
        ('data.source', 'kinetic400', "did you mean 'kinetics400'"),
    ],
)
def test_mistake_is_a_user_error(key, value, message):
    config = _config('demo')
    section, name = key.split('.')
    config[section][name] = value
    with pytest.raises(UserError, match=message):
        describe(config, 'demo.py')


def test_lines_are_wrapped_at_the_width():
    lines = describe(_config('demo'), 'demo.py', width=100).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) > len(describe(_config('demo'), 'demo.py').splitlines())


def test_command_shows_overrides_and_makes_nothing(tmp_path):
    flags = ['--config=configs/kinetics400_fe.py:runlocal', '--mode=show', '--config.seed=3']
    flags += ['--config.train.warmup_fraction=None', f'--workdir={tmp_path / "run"}']
    command = [sys.executable, '-m', 'vivit_jax.main', *flags]
    done = run_python(command)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    tables = _tables(done.stdout)
    assert {key: row[0] for key, row in tables['command line'].items()} == {
        'seed': '3',
        'train.warmup_fraction': 'None',
    }
    assert tables['configs/kinetics400_fe.py:runlocal']['model.hidden_size'][0] == '48'
    assert tables['Schedule']['warm-up'] == ('none',)
