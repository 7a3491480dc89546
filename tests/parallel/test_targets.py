"""Names of targets, and the command that compiles for them."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from python_process import run_python

from vivit_jax.errors import UserError
from vivit_jax.parallel.targets import CHIPS, parse_target

ROOT = Path(__file__).parents[2]
HAS_LIBTPU = importlib.util.find_spec('libtpu') is not None


def _summary(*flags):
    done = run_python([sys.executable, '-m', 'vivit_jax.summary', *flags])
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ('text', 'name', 'num_chips'),
    [
        ('h100:8', 'h100:8', 8),
        ('a100', 'a100:1', 1),
        ('v5e:16x16', 'v5e:16x16', 256),
        ('v4:2x2x4', 'v4:2x2x4', 16),
        ('v6e', 'v6e:2x2', 4),
        ('cpu:8', 'cpu:8', 8),
    ],
)
def test_target_is_a_chip_and_a_count(text, name, num_chips):
    target = parse_target(text)
    assert (target.name, target.num_chips) == (name, num_chips)
    assert target.chip is CHIPS[text.partition(':')[0]]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('h10:8', "no such chip; did you mean 'h100'"),
        ('h100:2x4', "'2x4' is no topology such as h100:8"),
        ('h100:0', "'0' is no topology"),
        ('v5e:8', "'8' is no topology such as v5e:2x4"),
        ('v4:2x4', "'2x4' is no topology such as v4:2x2x4"),
    ],
)
def test_mistake_in_a_target_is_told(text, message):
    with pytest.raises(UserError, match=message):
        parse_target(text)


@pytest.mark.slow
def test_summary_compiles_both_steps_for_several_devices():
    status, output, errors = _summary('--config=configs/demo.py:blind', '--target=cpu:4')
    assert status == 0, errors
    training, evaluation = output.split('\n\n')[1:]
    assert 'train.batch_size=32, 8 a device' in training
    assert 'eval.batch_size=32, 8 a device' in evaluation
    # Each device gets the gradients of all parameters, and some metrics.
    _, parameters = re.search(r'(parameters) +([\d.]+) MiB', training).groups()
    found = re.search(r'collectives +(\d+) all-reduce, ([\d.]+) MB', training)
    assert float(found[2]) == pytest.approx(float(parameters) * 1.048576, rel=0.1)
    assert 'all-gather' in evaluation and 'all-reduce' not in evaluation
    for step in (training, evaluation):
        assert ': fits' in step


def test_batch_that_does_not_divide_is_told():
    status, _, errors = _summary('--config=configs/demo.py', '--target=cpu:5')
    assert status == 2
    assert 'train.batch_size=32 is the batch of all 5 devices' in errors


@pytest.mark.slow
@pytest.mark.skipif(HAS_LIBTPU, reason='libtpu is installed, so programs are compiled')
def test_without_the_compiler_it_is_lowered_and_told():
    status, output, errors = _summary('--config=configs/demo.py', '--target=v5e:2x4')
    assert status == 0, errors
    assert "pip install 'vivit_jax[tpu]'" in output
    assert 'without activations and temporaries' in output and 'fits' not in output


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu: pip install 'vivit_jax[tpu]'")
def test_summary_compiles_for_a_slice_of_a_tpu_pod(tmp_path):
    # Four frames of 400 tokens, so that the TPU's kernel is taken.
    status, output, errors = _summary(
        '--config=configs/demo.py:vivit_joint',
        '--target=v5e:2x4',
        '--crop_size=160',
        '--batch_size=8',
        '--config.model.num_layers=1',
        '--config.model.dtype=bfloat16',
    )
    assert status == 0, errors
    training, evaluation = output.split('\n\n')[1:]
    assert 'pallas for 800 tokens' in training
    assert re.search(r'kernels +3 tpu_custom_call|tpu_custom_call.*;.*tpu_custom_call', training)
    assert 'tpu_custom_call' in evaluation
    assert 'all-reduce' in training and ': fits' in training
