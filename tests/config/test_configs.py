"""Every file in configs/, with every argument that its docstring names."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from vivit_jax.annotations.catalog import DATASETS
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.config import load
from vivit_jax.config.presets import runlocal
from vivit_jax.config.schema import default_config
from vivit_jax.evaluation.views import parse_views
from vivit_jax.models import registry
from vivit_jax.models.registry import create_model, specify
from vivit_jax.train.optimizer import create_optimizer
from vivit_jax.train.recipe import complete
from vivit_jax.train.schedule import create_schedule
from vivit_jax.train.state import init_state
from vivit_jax.train.step import create_train_step

CONFIGS = sorted((Path(__file__).parents[2] / 'configs').glob('*.py'))


def _module(path):
    spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _arguments(path):
    return re.findall(r"'(\w*)'", _module(path).get_config.__doc__)


CASES = [(path, argument) for path in CONFIGS for argument in _arguments(path)]


def test_all_configs_are_found():
    assert {'demo', 'kinetics400_fe'} <= {path.stem for path in CONFIGS}
    for path in CONFIGS:
        assert '' in _arguments(path), path
        assert f'--config=configs/{path.name}' in _module(path).__doc__
        # The default argument is the one that its documentation calls empty.
        default, empty = _module(path).get_config(), _module(path).get_config('')
        assert load.flatten(default) == load.flatten(empty)
    arguments = {(path.stem, argument) for path, argument in CASES}
    assert {('demo', 'blind'), ('kinetics400_fe', 'runlocal')} <= arguments


@pytest.mark.parametrize(
    ('path', 'argument'), CASES, ids=[f'{path.stem}:{argument}' for path, argument in CASES]
)
def test_config_describes_a_run(path, argument):
    config = _module(path).get_config(argument)
    assert config.is_locked
    if config.recipe:
        config.model.hidden_size = config.model.hidden_size or 48
        complete(config, num_videos=1000)
    spec = load.preprocessing(config)
    load.random_crop(config, spec)
    load.synthetic_videos(config)
    parse_views(config.eval.views)
    num_steps = load.steps(config.train, 'num', 1000)
    warmup_steps = load.steps(config.train, 'warmup', 1000, num_steps)
    assert 0 < load.steps(config.train, 'checkpoint_every', 1000) <= num_steps
    assert 0 < load.steps(config.eval, 'every', 1000) <= num_steps
    decay_steps = [round(1000 * epoch) for epoch in config.train.decay_epochs]
    schedule = create_schedule(
        config.train.learning_rate,
        warmup_steps,
        num_steps,
        decay_steps,
        kind=load.schedule_kind(config.train),
    )
    optimizer = create_optimizer(config.train, schedule)
    keywords = load.model_keywords(config)
    heads = config.data.label_columns
    if len(heads) > 1 and 'num_classes' not in keywords:  # it follows the data
        keywords['num_classes'] = dict.fromkeys(heads, 3)
    assert create_model(**keywords)
    if argument:  # without an argument, tests of lowering trace a whole update
        _trace_update(config, keywords, optimizer, schedule)


def _trace_update(config, keywords, optimizer, schedule):
    """An update on the config's own clips, without computing anything; fewer layers will do."""
    spec, heads = load.preprocessing(config), config.data.label_columns
    shallow = {'num_layers': 2, 'temporal_num_layers': 2, 'subsample_layers': (1,)}
    known = registry.model_keywords(keywords['name'])
    model = create_model(**{**keywords, **{x: shallow[x] for x in shallow if x in known}})
    state = jax.eval_shape(lambda: init_state(jax.random.key(0), model, optimizer, spec))
    clip_shape = (config.train.batch_size, spec.num_frames, spec.crop_size, spec.crop_size)
    clips = {'rgb': ((*clip_shape, 3), jnp.uint8), 'depth': ((*clip_shape, 1), jnp.uint16)}
    label = jax.ShapeDtypeStruct((config.train.batch_size,), jnp.int32)
    batch = {
        **{kind: jax.ShapeDtypeStruct(*clips[kind]) for kind in model.spec.streams},
        'label': dict.fromkeys(heads, label) if len(heads) > 1 else label,
    }
    train_step = create_train_step(
        model,
        optimizer,
        schedule,
        spec,
        load.augmentation(config),
        label_smoothing=config.train.label_smoothing,
        seed=config.seed,
    )
    new_state, metrics = jax.eval_shape(train_step, state, batch)
    shapes, new_shapes = (jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, new_state))
    assert new_shapes == shapes
    assert metrics['loss'].shape == ()


PUBLISHED = [path for path in CONFIGS if path.stem not in ('custom', 'demo', 'finetune')]


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda path: path.stem)
def test_published_training_is_of_the_dataset_and_model_in_its_name(path):
    config = _module(path).get_config()
    dataset = DATASETS[config.data.source]
    assert path.stem.startswith(f'{dataset.name}_')
    model, *rest = path.stem.removeprefix(f'{dataset.name}_').rsplit('_large', 1)
    assert model.removesuffix('_ladder') == config.model.name.removeprefix('vivit_')
    assert (config.model.size or 'B').startswith('L' if rest else 'B')
    # The classifier of the source has other classes, and the data other heads.
    assert 'head' in config.init.reinit
    assert config.data.label_columns == dataset.label_columns
    # Mirroring would give a wrong label where the direction of a motion is part of the class.
    assert dataset.flip or not config.augment.flip


@pytest.mark.parametrize(
    'path', [path for path, argument in CASES if argument == 'runlocal'], ids=lambda path: path.stem
)
def test_runlocal_is_small_for_every_model(path):
    full, config = (_module(path).get_config(arg) for arg in ('', 'runlocal'))
    assert config.model.name == full.model.name
    assert config.data.source == 'synthetic' and config.train.num_steps <= 100
    spec, model = load.preprocessing(config), create_model(**load.model_keywords(config))
    clip = jax.ShapeDtypeStruct((1, *spec.clip_shape, 3), float)
    params = jax.eval_shape(model.init, jax.random.key(0), clip)['params']
    assert sum(x.size for x in jax.tree.leaves(params)) < 1e6


def test_runlocal_keeps_structure_and_is_small():
    path = next(path for path in CONFIGS if path.stem == 'kinetics400_fe')
    full, small = (load.flatten(_module(path).get_config(arg)) for arg in ('', 'runlocal'))
    for key in ('model.name', 'model.pool', 'model.tokenizer', 'train.optimizer'):
        assert small[key] == full[key]
    for key in ('augment.color_jitter', 'augment.color_drop', 'augment.scale_jitter'):
        assert small[key] == full[key]
    assert small['data.source'] == 'synthetic'
    assert small['augment.flip'] == 0  # the embedded classes have a left and a right
    assert small['train.num_steps'] <= 100


@pytest.mark.parametrize(
    ('keywords', 'tubelet_size', 'temporal_num_layers'),
    [
        ({'size': 'L/16x4'}, (2, 8, 8), 1),
        ({'tokenizer': 'uniform_frames', 'num_classes': 400}, (1, 8, 8), 1),
        ({'temporal_num_layers': 0, 'pool': 'mean'}, (2, 8, 8), 0),
    ],
    ids=str,
)
def test_runlocal_keeps_the_kind_of_model(keywords, tubelet_size, temporal_num_layers):
    config = default_config()
    config.model.update(keywords)
    model = specify(**load.model_keywords(runlocal(config)))
    assert (model.tubelet_size, model.temporal_num_layers) == (tubelet_size, temporal_num_layers)
    for keyword in ('tokenizer', 'pool'):
        assert getattr(model, keyword) == keywords.get(
            keyword, getattr(specify('vivit_fe'), keyword)
        )
    # It follows the embedded data.
    assert config.model.num_classes is None


def test_runlocal_keeps_the_heads(cache_dir):
    config = default_config()
    config.data.update(label_columns=('verb', 'noun'), label_map='epic_{head}.txt')
    config.model.num_classes = {'verb': 97, 'noun': 300}
    config = runlocal(config)
    config.data.update(cache_dir=str(cache_dir))
    config.data.synthetic.update(num_train=24, num_val=8, num_test=8, num_frames=10)
    config.data.synthetic.update(height=32, width=40)
    videos = load_dataset(config.data, num_classes=config.model.num_classes)
    assert {head: len(names) for head, names in videos.label_names.items()} == {
        'verb': 8,
        'noun': 4,
    }
