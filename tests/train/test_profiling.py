import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from vivit_jax.errors import UserError
from vivit_jax.train.profiling import Profiler, parse_profile_steps


def run(folder, steps, ends_at):
    profiler = Profiler(folder, steps, 0, 10)
    function = jax.jit(lambda x: x @ x)
    for step in range(1, ends_at + 1):
        profiler.start(step)
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
            result = function(jnp.ones((8, 8)))
        if profiler.is_over(step):
            jax.block_until_ready(result)
            profiler.stop()
    profiler.stop()


def traced_steps(folder):
    (trace,) = folder.glob('plugins/profile/*/perfetto_trace.json.gz')
    events = json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
    found = [x['args'] for x in events if x.get('name') == 'train' and 'step_num' in x['args']]
    return sorted(int(args['step_num']) for args in found)


@pytest.mark.parametrize(
    ('ends_at', 'expected'), [(6, [3, 4]), (3, [3])], ids=['whole', 'training ends within it']
)
def test_trace_has_the_steps_that_were_asked_for(tmp_path, ends_at, expected):
    run(tmp_path, (3, 4), ends_at)
    assert traced_steps(tmp_path) == expected
    (planes,) = tmp_path.glob('plugins/profile/*/*.xplane.pb')  # what XProf reads
    assert planes.stat().st_size


def test_without_steps_there_is_no_trace(tmp_path):
    run(tmp_path, None, 4)
    assert not list(tmp_path.iterdir())


def test_training_goes_on_if_the_trace_cannot_be_written(tmp_path, caplog):
    (tmp_path / 'profile').touch()
    run(tmp_path / 'profile', (2, 2), 4)
    assert 'The trace cannot be written' in caplog.text


def test_other_processes_record_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    run(tmp_path, (2, 3), 4)
    assert not list(tmp_path.iterdir())


def test_steps_are_two_numbers():
    assert parse_profile_steps(['10', '20']) == (10, 20)
    for words in (['10'], ['10', '20', '30'], ['20', '10'], ['0', '5'], ['a', 'b'], []):
        with pytest.raises(UserError, match=r'--profile_steps=.* such as 10,20'):
            parse_profile_steps(words)


@pytest.mark.parametrize(
    ('done', 'message'),
    [(0, 'has the steps 1 to 10 before it'), (5, 'steps 6 to 10'), (10, 'all 10 steps are done')],
)
def test_steps_must_lie_before_the_training(tmp_path, done, message):
    for steps in ((5, 11), (11, 12)) if done == 0 else ((5, 8),):
        with pytest.raises(UserError, match=message):
            Profiler(tmp_path, steps, done, 10)
