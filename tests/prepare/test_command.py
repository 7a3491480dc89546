import csv
import os
import re
import sys
from pathlib import Path

import pytest
from python_process import run_python

ROOT = Path(__file__).parents[2]


def _run(*args):
    command = [sys.executable, '-m', 'vivit_jax.prepare', *args]
    return run_python(command)


@pytest.fixture
def config(synthetic_folder):
    files = [
        f'--config.data.{split}_csv={synthetic_folder / split}.csv' for split in ('train', 'val')
    ]
    return ['--config=configs/custom.py', *files]


@pytest.mark.slow
def test_check_goes_on_with_missing_files_and_its_list_can_be_packed(config, tmp_path):
    listed = tmp_path / 'val.csv'
    folder = Path(config[2].partition('=')[2]).parent
    lines = [f'{folder}/val/{i:05d}.mp4,approach' for i in range(3)]
    listed.write_text('\n'.join(['video_path,label', *lines, 'gone.mp4,recede']))
    val = f'--config.data.val_csv={listed}'
    done = _run('check', *config, val, '--split=val', f'--output={tmp_path}/checked')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('val: 4 listed, 3 found: ')
    assert 'recede 1 of 1' in done.stdout
    val = f'--config.data.val_csv={tmp_path}/checked/val_ok.csv'
    flags = ['--split=val', f'--output={tmp_path}', '--gop=4', '--num_shards=2', '--verify']
    done = _run('records', *config, val, *flags)
    assert done.returncode == 0, done.stderr
    assert '3 videos' in done.stdout
    assert f"tfds.data_source('custom', split='val', data_dir='{tmp_path}')" in done.stdout
    assert f'--config.data.root={tmp_path}/custom/1.0.0' in done.stdout
    assert '0 of 2 shards are damaged' in done.stdout
    with open(tmp_path / 'custom/1.0.0/val.csv', newline='') as file:
        found = [os.path.basename(row['video_path']) for row in csv.DictReader(file)]
    assert found == ['00000.mp4', '00001.mp4', '00002.mp4']


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([], 'name one command of check, records, '),
        (['check', '--output=x', '--gop=3'], '--gop is not for check'),
        (['records', '--output=x', '--name=K-400'], '--name=K-400: TFDS takes small letters'),
    ],
)
def test_mistakes_are_one_line(config, args, message):
    done = _run(*args, *config)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith('Error: '))
    assert re.search(message, line)
    assert 'Traceback' not in done.stderr
    assert done.stdout == ''
