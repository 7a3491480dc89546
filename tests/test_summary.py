"""The command that counts parameters, multiply-adds and memory."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from absl import flags
from absl.testing import flagsaver
from python_process import run_python

from vivit_jax import summary
from vivit_jax.costs import activation_bytes, model_call
from vivit_jax.errors import UserError
from vivit_jax.models.published import published_models
from vivit_jax.models.registry import create_model

ROOT = Path(__file__).parents[1]
TINY = ['hidden_size=8', 'num_layers=1', 'num_heads=2', 'mlp_dim=16', '--frames=4']


@pytest.fixture
def call(capsys):
    """Runs the command in this process; returns its exit status and its lines on stdout."""

    def run(*args):
        with flagsaver.flagsaver():
            status = summary.main(flags.FLAGS(['summary', *args])[1:])
        return status, capsys.readouterr().out.splitlines()

    return run


def command(*args):
    return run_python([sys.executable, '-m', 'vivit_jax.summary', *args])


def rows_of(lines):
    """The table as part -> column -> number."""
    start = next(i for i, line in enumerate(lines) if line.startswith('part'))
    names = lines[start].replace(' MiB', '').split()[1:]
    table = {}
    for line in lines[start + 1 : lines.index('', start)]:
        part, *numbers = line.replace(',', '').split()
        table[part] = dict(zip(names, map(float, numbers), strict=True))
    return table


def test_parts_and_the_rest_sum_to_the_total():
    model = create_model('vivit_fe', hidden_size=8, num_layers=2, num_heads=2, mlp_dim=16)
    rows = summary.summarize(model, optax.sgd(0.1, momentum=0.9), (4, 32, 32), 2)
    total = rows.pop('total')
    for column, value in total.items():
        assert sum(row[column] for row in rows.values()) == pytest.approx(value, rel=1e-9)
    assert rows['other']['parameters'] == 2 * 8  # two class tokens
    assert rows['other']['GMAC'] == pytest.approx(0, abs=1e-12)
    assert 0 <= rows['other']['XLA/2'] < 1e-3 * total['XLA/2']
    assert 0 <= rows['other']['kept MiB'] < 1e-3 * total['kept MiB']


@pytest.mark.parametrize(
    ('optimizer', 'copies'),
    [(optax.sgd(0.1), 2), (optax.sgd(0.1, momentum=0.9), 3), (optax.adamw(0.1), 4)],
)
def test_state_is_parameters_gradients_and_moments(optimizer, copies):
    model = create_model('vivit_joint', hidden_size=8, num_layers=1, num_heads=2, mlp_dim=16)
    for row in summary.summarize(model, optimizer, (4, 32, 32), 1).values():
        assert row['state MiB'] == pytest.approx(copies * 4 * row['parameters'] / 2**20)


def test_model_by_name_takes_keywords_and_sizes(call):
    args = ['dtype=bfloat16', 'remat=block', "num_classes={'verb': 3, 'noun': 5}"]
    status, lines = call('vivit_fe', *TINY, *args, '--crop_size=32', '--batch_size=3')
    assert status == 0
    table = rows_of(lines)
    assert table['output_projection_verb']['parameters'] == 8 * 3 + 3
    assert table['output_projection_noun']['parameters'] == 8 * 5 + 5
    model = create_model(
        'vivit_fe',
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        mlp_dim=16,
        dtype='bfloat16',
        remat='block',
        num_classes={'verb': 3, 'noun': 5},
    )
    clip = jax.ShapeDtypeStruct((3, 4, 32, 32, 3), jnp.float32)
    whole = model_call(model, clip, train=True)
    kept = activation_bytes(whole.function, *whole.args) / 2**20
    assert table['total']['kept'] == pytest.approx(kept, abs=0.05)
    assert max(map(len, lines)) <= 120
    text = '\n'.join(lines)
    assert '4x32x32' in text and 'batch of 3' in text and 'sgd' in text and 'remat=block' in text


def test_config_gives_model_clip_batch_and_optimizer():
    done = command('--config=configs/demo.py', '--config.train.batch_size=5')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert rows_of(lines)['total']['parameters'] > 100_000
    assert '8x48x48' in done.stdout and 'batch of 5' in done.stdout and 'adamw' in done.stdout


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['vivit_jont'], "did you mean 'vivit_joint'"),
        (['vivit_joint', 'hiden_size=8'], "did you mean 'hidden_size'"),
        (['vivit_joint', 'hidden_size=wide'], 'must be of type int'),
        (['vivit_joint', 'hidden_size'], 'keyword=value'),
        (['vivit_joint', 'hidden_size=8'], 'num_heads=12 must divide'),
        (['vivit_joint', 'size=B'], "form 'B/16x2'"),
        (['vivit_joint', 'num_classes=many'], 'whole number'),
        (['vivit_joint', '--frames=3'], 'frames=3 does not divide'),
        (['vivit_joint', '--crop_size=100'], 'height=100 does not divide'),
        (['vivit_joint', '--reference'], 'either a config'),
        ([], 'either a config'),
    ],
    ids=lambda x: ' '.join(x) if isinstance(x, list) else '',
)
def test_mistakes_are_explained(args, message, call):
    with pytest.raises(UserError, match=message) as caught:
        call(*args)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['vivit_jont'], 'unknown model'),
        (['--frame=3', 'vivit_fe'], "'frame'"),
        (['--config=configs/none.py'], 'there is no config configs/none.py; known: custom'),
    ],
)
def test_mistake_is_one_line_and_status_2(args, message):
    done = command(*args)
    assert done.returncode == 2
    assert done.stdout == ''
    error = [line for line in done.stderr.splitlines() if line.startswith('Error: ')]
    assert len(error) == 1 and message in error[0]
    assert 'Traceback' not in done.stderr


def test_references_stand_beside_their_papers(call, monkeypatch):
    first = published_models()[:1]
    monkeypatch.setattr(summary, 'published_models', lambda: first)
    status, lines = call('--reference')
    assert status == 0
    assert max(map(len, lines)) <= 120
    for part in ('B/16x2 joint', '88,954,000', '88.9', '+0.1 %', '451.5', '455.21', '455.2 XLA/2'):
        assert part in lines[1]


@pytest.mark.parametrize(
    'change',
    [{'parameters': 88_954_001}, {'costs': {'GMAC': 452.1}}, {'costs': {'XLA/2': 452.8}}],
    ids=str,
)
def test_deviation_from_a_reference_is_an_error(change, call, monkeypatch, capsys):
    wrong = dataclasses.replace(published_models()[0], **change)
    monkeypatch.setattr(summary, 'published_models', lambda: [wrong])
    with flagsaver.flagsaver():
        assert summary.main(flags.FLAGS(['summary', '--reference'])[1:]) == 1
    assert 'B/16x2 joint' in capsys.readouterr().err
