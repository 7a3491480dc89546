import signal

import pytest

from vivit_jax.errors import UserError
from vivit_jax.prepare.workers import Died, run_tasks

# Tasks are expressions: `eval` is a function that any process can import.
_DIES = '(__import__("os").kill(__import__("os").getpid(), 9) for _ in [0])'


def test_values_come_with_the_place_of_their_task():
    found = sorted(run_tasks(eval, ['[1, 2]', '[]', '[3]'], num_workers=2))
    assert found == [(0, 1), (0, 2), (2, 3)]


def test_nothing_to_do_starts_nothing():
    assert list(run_tasks(eval, [], num_workers=4)) == []


def test_a_process_that_dies_is_told_from_the_others():
    tasks = ['["a"]', f'["b", *{_DIES}]', '["c"]', '__import__("os")._exit(3)', '["d"]']
    found = dict(run_tasks(eval, tasks, num_workers=1))
    assert {place: found[place] for place in (0, 2, 4)} == {0: 'a', 2: 'c', 4: 'd'}
    assert isinstance(found[1], Died)
    assert signal.Signals.SIGKILL.name in found[1]
    assert 'exit status 3' in found[3]


def test_what_came_before_a_death_is_kept():
    task = f'(x for part in (["b"], {_DIES}) for x in part)'
    values = [value for _, value in run_tasks(eval, [task], num_workers=1)]
    assert values[0] == 'b'
    assert isinstance(values[1], Died)


def test_errors_of_tasks_are_raised_here():
    with pytest.raises(RuntimeError, match=r'ZeroDivisionError: division by zero'):
        list(run_tasks(eval, ['1/0'], num_workers=1))
    catalog = '__import__("vivit_jax.annotations.catalog").annotations.catalog'
    refuse = f'{catalog}.find_dataset("nonsense")'
    with pytest.raises(UserError, match=r"unknown dataset 'nonsense'"):
        list(run_tasks(eval, [refuse], num_workers=1))


def test_no_process_of_the_commands_imports_jax():
    names = ['vivit_jax.prepare.__main__', 'vivit_jax.prepare.check', 'vivit_jax.prepare.shards']
    modules = f'[[__import__(name) for name in {names}] and list(__import__("sys").modules)]'
    ((_, loaded),) = run_tasks(eval, [modules], num_workers=1)
    assert set(names) < set(loaded)
    assert not {'jax', 'tensorflow', 'torch'} & set(loaded)
