import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.train.checkpoints import Checkpoints, set_damaged_aside
from vivit_jax.train.state import init_state
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights import orbax
from vivit_jax.weights.load import load_checkpoint, read_weights
from vivit_jax.weights.orbax import find_checkpoint

SPEC = Preprocessing(num_frames=4, frame_stride=3, short_side=16, crop_size=16, color_order='bgr')
KEYWORDS = {
    'hidden_size': 8,
    'num_layers': 1,
    'num_heads': 2,
    'mlp_dim': 8,
    'tubelet_size': (2, 8, 8),
    'temporal_num_layers': 1,
    'num_classes': 3,
}
CARD = ModelCard({'name': 'vivit_fe', **KEYWORDS}, SPEC, ('a', 'b', 'c'))


def state_at(step, value=0.0, **keywords):
    model = create_model('vivit_fe', **{**KEYWORDS, **keywords})
    state = init_state(jax.random.key(0), model, optax.sgd(0.1, momentum=0.9), SPEC)
    params = jax.tree.map(lambda x: x + value, state.params)
    return state.replace(step=jnp.int32(step), params=params)


def save_all(folder, metrics, keep_last=1, keep_best=1):
    checkpoints = Checkpoints(folder / 'checkpoints', keep_last, keep_best)
    for step, accuracy in metrics.items():
        found = {} if accuracy is None else {'val/acc1': accuracy}
        checkpoints.save(state_at(step, value=step), CARD, found)
    checkpoints.close()


def kept(folder):
    return sorted(int(path.name) for path in (folder / 'checkpoints').iterdir())


@pytest.mark.parametrize(
    ('keep_last', 'keep_best', 'expected'),
    [(1, 1, [20, 50]), (2, 1, [20, 40, 50]), (1, 2, [20, 30, 50]), (1, 0, [50])],
)
def test_last_and_best_are_kept(tmp_path, keep_last, keep_best, expected):
    metrics = {10: 0.1, 20: 0.9, 30: 0.8, 40: 0.2, 50: 0.3}
    save_all(tmp_path, metrics, keep_last, keep_best)
    assert kept(tmp_path) == expected


@pytest.mark.parametrize(
    ('metrics', 'step'),
    [({10: 0.9, 20: 0.5}, 10), ({10: 0.9, 20: None}, 10), ({10: None, 20: None}, 20)],
    ids=['best', 'best though the latest has none', 'latest'],
)
def test_run_folder_means_its_best_checkpoint_else_the_latest(tmp_path, metrics, step):
    save_all(tmp_path, metrics)
    assert find_checkpoint(tmp_path)[1] == step


def test_a_checkpoint_that_is_deleted_while_it_is_read_gives_place_to_the_next(
    tmp_path, monkeypatch
):
    save_all(tmp_path, {10: 0.9, 20: 0.5})

    def find(path):
        found = find_checkpoint(path)
        shutil.rmtree(tmp_path / 'checkpoints' / '10', ignore_errors=True)
        return found

    monkeypatch.setattr(orbax, 'find_checkpoint', find)
    assert read_weights(tmp_path).step == 20
    with pytest.raises(UserError, match='no run folder or checkpoint at'):
        orbax.read_checkpoint(tmp_path / 'checkpoints' / '10')


def test_single_checkpoint_can_be_named(tmp_path):
    save_all(tmp_path, {10: 0.9, 20: 0.5})
    assert find_checkpoint(tmp_path / 'checkpoints' / '20')[1] == 20


@pytest.mark.parametrize('linked', [False, True])
@pytest.mark.parametrize(
    ('metrics', 'best', 'last'),
    [
        ({10: 0.9, 20: 0.5}, (10, 0.9), (20, 0.5)),
        ({10: 0.5, 20: 0.75}, (20, 0.75), (20, 0.75)),
        ({10: 0.5, 20: None}, (10, 0.5), (20, None)),
        ({10: None, 20: None}, (20, None), (20, None)),
    ],
)
def test_best_and_last_have_names(tmp_path, metrics, best, last, linked):
    save_all(tmp_path, metrics)
    checkpoints = Checkpoints(tmp_path / 'checkpoints', keep_last=1, keep_best=1)
    assert checkpoints.best_and_last() == {'best': best, 'last': last}
    if linked:
        (tmp_path / 'best').symlink_to('checkpoints/1')  # of an earlier end
        checkpoints.link()
    checkpoints.close()
    for name, (step, _) in (('best', best), ('last', last)):
        assert find_checkpoint(tmp_path / name)[1] == step
        assert read_weights(tmp_path / name).step == step
        assert (tmp_path / name).is_symlink() == linked
        assert not linked or (tmp_path / name).resolve() == tmp_path / 'checkpoints' / str(step)


@pytest.mark.parametrize('name', ['vivit_joint', 'ctn'])
def test_averages_are_the_model_where_a_run_keeps_them(tmp_path, name):
    keywords = {'name': name, 'mlp_dim': 8, 'num_heads': 2, 'num_layers': 1, 'hidden_size': 8}
    card = ModelCard({**keywords, 'num_classes': 3}, SPEC, CARD.label_names)
    saved = init_state(
        jax.random.key(0), create_model(**card.model), optax.sgd(0.1), SPEC, has_ema=True
    )
    saved = saved.replace(step=jnp.int32(7), ema=jax.tree.map(lambda x: x + 1, saved.ema))
    assert bool(saved.batch_stats) == (name == 'ctn')
    checkpoints = Checkpoints(tmp_path / 'checkpoints', 1, 0)
    checkpoints.save(saved, card, {})
    restored = checkpoints.restore(7, jax.eval_shape(lambda: saved))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored, saved)

    loaded = load_checkpoint(tmp_path)[1]
    jax.tree.map(np.testing.assert_array_equal, loaded, saved.ema)


def test_restored_state_is_bitwise_the_saved_one(tmp_path):
    saved = state_at(7, value=0.125)
    checkpoints = Checkpoints(tmp_path, 1, 0)
    checkpoints.save(saved, CARD, {})
    checkpoints.wait()
    restored = checkpoints.restore(7, jax.eval_shape(lambda: state_at(0)))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored, saved)


def test_a_clock_that_jumps_ahead_loses_no_checkpoint(tmp_path, monkeypatch):
    clock, jumps = time.time, itertools.count()
    monkeypatch.setattr(time, 'time', lambda: clock() + 60 * next(jumps))
    save_all(tmp_path, {1: None})
    monkeypatch.undo()
    assert kept(tmp_path) == [1]


def test_state_of_another_model_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path, 1, 0)
    checkpoints.save(state_at(7), CARD, {})
    checkpoints.wait()
    with pytest.raises(UserError, match='does not fit'):
        checkpoints.restore(7, jax.eval_shape(lambda: state_at(0, hidden_size=16)))
    checkpoints.close()


def test_loaded_model_computes_what_the_saved_one_did(tmp_path):
    save_all(tmp_path, {10: None})
    model, variables, spec, label_names = load_checkpoint(tmp_path)
    assert (spec, label_names) == (SPEC, ('a', 'b', 'c'))
    clip = jax.random.uniform(jax.random.key(1), (2, 4, 16, 16, 3))
    expected = create_model('vivit_fe', **KEYWORDS).apply(
        {'params': state_at(10, value=10).params}, clip
    )
    np.testing.assert_array_equal(model.apply(variables, clip).logits, expected.logits)


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ('name', 'damage'),
    [
        ('weights', _flip_a_bit),
        ('weights', _cut),
        ('weights', Path.unlink),
        ('card/metadata', _flip_a_bit),
        ('checksums.json', _cut),
        ('_CHECKPOINT_METADATA', _cut),
    ],
)
def test_a_damaged_checkpoint_is_set_aside(tmp_path, caplog, name, damage):
    save_all(tmp_path, {10: None, 20: None}, keep_last=2)
    folder = tmp_path / 'checkpoints'
    files = sorted((folder / '20').rglob('*'), key=lambda path: path.stat().st_size)
    path = [path for path in files if path.is_file()][-1]
    path = path if name == 'weights' else folder / '20' / name
    damage(path)
    name = str(path.relative_to(folder / '20'))
    with pytest.raises(UserError, match=f'20 is damaged: {name} is .*other checkpoints there: 10'):
        load_checkpoint(tmp_path)
    set_damaged_aside(folder)
    message = caplog.messages[-1]
    assert message.startswith(f'Checkpoint 20 is damaged ({name})')
    assert message.endswith('going on from step 10')
    assert kept(tmp_path) == [10]
    assert [path.name[:3] for path in (tmp_path / 'damaged').iterdir()] == ['20-']
    assert find_checkpoint(tmp_path)[1] == 10


def test_damaged_metrics_alone_are_set_aside(tmp_path):
    save_all(tmp_path, {10: 0.9, 20: None})
    folder = tmp_path / 'checkpoints'
    (folder / '10' / 'metrics' / 'metrics').write_text('')
    with pytest.raises(UserError, match='10/metrics is damaged: remove this folder'):
        find_checkpoint(tmp_path)
    set_damaged_aside(folder)
    assert [path.name[:8] for path in (tmp_path / 'damaged' / '10').iterdir()] == ['metrics-']
    assert find_checkpoint(tmp_path) == (folder, 20)
    assert kept(tmp_path) == [10, 20]


def test_a_checkpoint_without_checksums_is_read(tmp_path):
    save_all(tmp_path, {10: None})
    (tmp_path / 'checkpoints' / '10' / 'checksums.json').unlink()
    assert load_checkpoint(tmp_path)[3] == CARD.label_names


def test_metrics_can_be_added_to_a_sound_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / 'checkpoints', 2, 1)
    for step, metrics in ((10, {'val/acc1': 0.5}), (20, {})):
        checkpoints.save(state_at(step), CARD, metrics)
    checkpoints.wait()
    assert not checkpoints.is_validated(20)
    checkpoints.add_metrics(20, {'val/acc1': 0.75, 'val/loss': 1.0})
    assert checkpoints.is_validated(20)
    assert checkpoints.best_and_last() == {'best': (20, 0.75), 'last': (20, 0.75)}
    checkpoints.close()
    set_damaged_aside(tmp_path / 'checkpoints')
    assert find_checkpoint(tmp_path)[1] == 20


@pytest.mark.parametrize('make', [False, True], ids=['missing', 'empty'])
def test_folder_without_checkpoint_is_an_error_with_its_path(tmp_path, make):
    folder = tmp_path / 'run'
    if make:
        (folder / 'checkpoints').mkdir(parents=True)
    with pytest.raises(UserError, match=str(folder)):
        load_checkpoint(folder)


_FULL_DISK = """
import resource, signal, sys
sys.path[:0] = {paths}
from pathlib import Path
import pytest
from copied_tests import state_at, CARD
from vivit_jax.errors import UserError
from vivit_jax.train.checkpoints import Checkpoints

checkpoints = Checkpoints(Path({folder!r}), 1, 0)
checkpoints.save(state_at(1), CARD, {{}})
checkpoints.wait()
# No file may grow: as on a full disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
with pytest.raises(UserError, match='could not be saved') as error:
    checkpoints.save(state_at(2), CARD, {{}})
    checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(error.value)
"""


@pytest.mark.slow
def test_full_disk_leaves_the_previous_checkpoint_usable(tmp_path):
    (tmp_path / 'copied_tests.py').write_text(Path(__file__).read_text())
    folder = tmp_path / 'run'
    script = _FULL_DISK.format(paths=[str(tmp_path)], folder=str(folder))
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '(File too large). Complete checkpoints: [1]' in done.stdout
    assert 'Traceback' not in done.stderr
    assert load_checkpoint(folder)[3] == ('a', 'b', 'c')


@pytest.mark.parametrize(
    ('num_classes', 'label_names'),
    [(3, ('a', 'b', 'c')), ({'verb': 2, 'noun': 1}, {'verb': ('a', 'b'), 'noun': ('c',)})],
    ids=['one head', 'two heads'],
)
def test_card_survives_json(num_classes, label_names):
    model = {'name': 'vivit_fe', 'num_classes': num_classes}
    is_multi_label = isinstance(num_classes, int)
    card = ModelCard(model, SPEC, label_names, 2.5, is_multi_label)
    saved = json.loads(json.dumps(card.to_json()))
    assert ModelCard.from_json(saved) == card
    saved['is_multi_label'] = 1 if is_multi_label else True
    with pytest.raises(ValueError, match=r'is_multi_label=.* must be a bool, and of one head'):
        ModelCard.from_json(saved)
    del saved['typical_sec'], saved['is_multi_label']  # as in older cards
    assert ModelCard.from_json(saved) == ModelCard(model, SPEC, label_names)


def test_loaded_model_has_its_heads_in_order(tmp_path):
    keywords = {**KEYWORDS, 'num_classes': {'verb': 2, 'noun': 3}}
    label_names = {'verb': ('cut', 'fry'), 'noun': ('egg', 'onion', 'pan')}
    card = ModelCard({'name': 'vivit_fe', **keywords}, SPEC, label_names)
    state = state_at(10, value=0.5, num_classes=keywords['num_classes'])
    checkpoints = Checkpoints(tmp_path, 1, 0)
    checkpoints.save(state, card, {})
    checkpoints.close()
    model, variables, _, loaded = load_checkpoint(tmp_path)
    assert list(loaded.items()) == list(label_names.items())
    clip = jax.random.uniform(jax.random.key(1), (2, 4, 16, 16, 3))
    expected = create_model('vivit_fe', **keywords).apply({'params': state.params}, clip).logits
    logits = model.apply(variables, clip).logits
    assert {head: x.shape for head, x in logits.items()} == {'verb': (2, 2), 'noun': (2, 3)}
    jax.tree.map(np.testing.assert_array_equal, dict(logits), dict(expected))
