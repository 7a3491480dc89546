import re

import pytest

from vivit_jax.config.presets import runlocal
from vivit_jax.config.schema import default_config
from vivit_jax.prepare.bench import bench


@pytest.mark.slow
def test_rates_of_files_records_and_training_are_compared(cache_dir, capsys):
    config = runlocal(default_config())
    config.data.update(cache_dir=str(cache_dir), num_workers=2)
    config.data.synthetic.update(num_train=24, num_val=8, num_test=8, num_frames=10)
    config.data.synthetic.update(height=32, width=40)
    config.model.update(num_layers=1, temporal_num_layers=0)
    bench(config, seconds=0.2)
    lines = capsys.readouterr().out.splitlines()
    rate = r'[1-9][\d.]* clips/s'
    for line, start in zip(lines, ('files: ', 'records: '), strict=False):
        assert re.fullmatch(rf'{start}{rate} with one worker, [\d.]+ with 2', line)
    assert re.match(rf'training: {rate} on \d+ .*, 8 clips a step', lines[2])
    assert re.match(r'\d+ worker\(s\) feed it from records; 2 decode', lines[3])
