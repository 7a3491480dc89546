import json
import sys

import jax
import numpy as np
import pytest
from python_process import run_python

from vivit_jax.config.presets import published_vivit, runlocal
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.train.loop import Trainer
from vivit_jax.train.seeds import for_each_seed, parse_seeds


def test_seeds_are_different_whole_numbers():
    assert parse_seeds(['3', '0']) == (3, 0)
    for words in ([], ['a'], ['0.5'], ['1', '1'], ['-1']):
        with pytest.raises(UserError, match=r'--seeds=.* such as 0,1,2'):
            parse_seeds(words)


def test_table_has_mean_and_standard_deviation(tmp_path, capsys):
    accuracy, loss = {4: 0.5, 0: 0.25, 7: 0.6}, {4: 1.0, 0: 1.5, 7: 1.25}
    config, seen = default_config(), []

    def run(config, folder):
        seed = config.seed
        seen.append(folder)
        own = {} if seed == 7 else {'val/acc5': 1.0}  # what one lacks, the table leaves out
        return 0, {'val/acc1': accuracy[seed], 'val/loss': loss[seed]} | own

    assert for_each_seed([4, 0, 7], config, tmp_path, run) == 0
    assert seen == [tmp_path / f'seed_{seed}' for seed in (4, 0, 7)]
    assert config.seed == 0
    saved = json.loads((tmp_path / 'seeds_train.json').read_text())
    assert saved['seeds'] == [4, 0, 7]
    for name, values in (('val/acc1', accuracy), ('val/loss', loss)):
        found = saved['metrics'].pop(name)
        assert found['values'] == list(values.values())
        assert found['mean'] == pytest.approx(np.mean(found['values']))
        assert found['standard_deviation'] == pytest.approx(np.std(found['values'], ddof=1))
    assert not saved['metrics']
    assert (
        (tmp_path / 'seeds_train.md').read_text()
        == capsys.readouterr().out
        == (
            '| metric | seed 4 | seed 0 | seed 7 | mean | standard deviation |\n'
            '| --- | ---: | ---: | ---: | ---: | ---: |\n'
            '| val/acc1 | 50.00 % | 25.00 % | 60.00 % | 45.00 % | 18.03 % |\n'
            '| val/loss | 1.0000 | 1.5000 | 1.2500 | 1.2500 | 0.2500 |\n'
        )
    )


def test_seed_that_is_stopped_ends_the_loop(tmp_path):
    statuses = {0: 0, 1: 130, 2: 0}
    seen = []

    def run(config, folder):
        seen.append(config.seed)
        return statuses[config.seed], {'val/acc1': 0.5}

    assert for_each_seed([0, 1, 2], default_config(), tmp_path, run) == 130
    assert seen == [0, 1]
    assert json.loads((tmp_path / 'seeds_train.json').read_text())['seeds'] == [0]
    assert json.loads((tmp_path / 'seeds_train.json').read_text())['metrics']['val/acc1'] == {
        'values': [0.5],
        'mean': 0.5,
        'standard_deviation': None,
    }


@pytest.mark.slow
def test_trainings_leave_no_arrays_and_are_those_of_the_seeds_alone(tmp_path, cache_dir):
    config = runlocal(published_vivit('vivit_fe', 'B/16x2', 'kinetics400', 30.0))
    config.data.update(num_workers=0, cache_dir=str(cache_dir))
    config.data.synthetic.update(num_train=8, num_val=4, num_test=4, num_frames=10)
    config.train.update(num_steps=2, batch_size=4)
    config.eval.update(batch_size=4, test_at_end=False)
    held = []

    def train(config, folder):
        held.append(sum(x.nbytes for x in jax.live_arrays()))
        trainer = Trainer(config, folder)
        return trainer.run(), trainer.results

    assert for_each_seed([0, 1, 2], config, tmp_path, train) == 0
    assert held[2] <= held[1] < held[0] + 100_000, held  # the parameters alone are larger
    config.seed = 1
    assert Trainer(config, tmp_path / 'alone').run() == 0
    lines = [
        json.loads((folder / 'metrics.jsonl').read_text().splitlines()[-1])
        for folder in (tmp_path / 'seed_1', tmp_path / 'alone', tmp_path / 'seed_0')
    ]
    losses = [line['train/loss'] for line in lines]
    assert losses[0] == losses[1] != losses[2]
    saved = json.loads((tmp_path / 'seeds_train.json').read_text())
    assert saved['metrics']['val/loss']['values'][:2] == [
        lines[2]['val/loss'],
        lines[0]['val/loss'],
    ]
    # The same command goes on: all steps are done.
    held.clear()
    assert for_each_seed([0, 1, 2], config, tmp_path, train) == 0
    assert json.loads((tmp_path / 'seeds_train.json').read_text()) == saved


@pytest.mark.slow
def test_finished_training_keeps_the_result_of_its_test(tmp_path, cache_dir):
    config = runlocal(published_vivit('vivit_fe', 'B/16x2', 'kinetics400', 30.0))
    config.data.update(num_workers=0, cache_dir=str(cache_dir))
    config.data.synthetic.update(num_train=8, num_val=4, num_test=4, num_frames=10)
    config.train.update(num_steps=2, batch_size=4)
    config.eval.update(batch_size=4, views='1x1')

    def train():
        trainer = Trainer(config, tmp_path)
        assert trainer.run() == 0
        return trainer.results

    found = train()
    path = tmp_path / 'evaluation' / 'test_1x1_step2.json'
    path.write_text(path.read_text().replace(str(found['test/loss@1x1']), '77.0'))
    assert train() == {**found, 'test/loss@1x1': 77.0}
    assert train() == {**found, 'test/loss@1x1': 77.0}
    config.eval.views = '2x1'
    assert 0 < train()['test/loss@2x1'] < 50
    # A training that does a step is tested, whatever the folder holds of a step of this number.
    stale = path.read_text().replace('"step": 2', '"step": 3')
    path.with_name('test_1x1_step3.json').write_text(stale)
    config.eval.views, config.train.num_steps = '1x1', 3
    assert 0 < train()['test/loss@1x1'] < 50


@pytest.mark.slow
def test_command_compares_trainings_and_evaluations(tmp_path, cache_dir):
    command = [sys.executable, '-m', 'vivit_jax.main', f'--workdir={tmp_path}', '--seeds=0,1']
    command += ['--config=configs/kinetics400_fe.py:runlocal', '--config.train.num_steps=2']
    command += [f'--config.data.cache_dir={cache_dir}', '--config.data.num_workers=0']
    command += ['--config.data.synthetic.num_train=8', '--config.data.synthetic.num_frames=10']
    command += ['--config.data.synthetic.num_val=4', '--config.data.synthetic.num_test=4']
    done = run_python([*command, '--config.eval.views=1x1', '--profile_steps=1,2'])
    assert done.returncode == 2 and '--profile_steps is for a training of one seed' in done.stderr
    done = run_python([*command, '--config.eval.views=1x1'])
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / 'seeds_train.md').read_text()
    for seed in (0, 1):
        folder = tmp_path / f'seed_{seed}'
        log = (folder / 'log.txt').read_text()
        assert log.count('steps of ') == 1 and f'run folder {folder}' in log
        assert json.loads((folder / 'config.json').read_text())['seed'] == seed
    saved = json.loads((tmp_path / 'seeds_train.json').read_text())['metrics']
    found = [_tested(tmp_path / f'seed_{seed}', '1x1') for seed in (0, 1)]
    assert saved['test/loss@1x1']['values'] == found
    done = run_python([*command, '--mode=evaluate', '--config.eval.views=2x1'])
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / 'seeds_evaluate.json').read_text())['metrics']
    found = [_tested(tmp_path / f'seed_{seed}', '2x1') for seed in (0, 1)]
    assert saved['test/loss@2x1']['mean'] == pytest.approx(np.mean(found))


def _tested(folder, views):
    saved = json.loads((folder / 'evaluation' / f'test_{views}_step2.json').read_text())
    return saved[f'test/loss@{views}']
