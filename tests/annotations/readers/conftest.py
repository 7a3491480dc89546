"""Writes a few lines in the format of a dataset, reads them, and compares."""

import dataclasses
import json
import logging
import os
import subprocess
import sys

import pytest

from vivit_jax.annotations.catalog import find_dataset, read_dataset
from vivit_jax.annotations.check import check_annotations
from vivit_jax.annotations.depth_videos import choose_videos
from vivit_jax.heads import numbered_labels


def _write(folder, files, videos):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    for name in videos.split('\n'):
        path = folder / name
        if name.endswith('/'):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.fixture
def read_example(tmp_path):
    """Reads a dataset whose folder has these files.

    Args: name; files by path; paths of empty videos, a line each, folders of frames end in '/'.
    """

    def read(dataset, files, videos='', protocol=''):
        _write(tmp_path, files, videos)
        return read_dataset(find_dataset(dataset), tmp_path, protocol=protocol)

    return read


@pytest.fixture
def check_example(tmp_path, read_example, caplog):
    """Compares a reader's result with rows by split, classes (or their number) and log words."""

    def check(dataset, files, videos, rows, classes, says, protocol=''):
        columns = {column: column for column in find_dataset(dataset).label_columns}
        with caplog.at_level(logging.INFO):
            listing = choose_videos(read_example(dataset, files, videos, protocol), 'rgb')
            data = check_annotations(listing, label_columns=columns, max_bad_fraction=1.0)
        expected = {
            split: [dataclasses.replace(x, video_path=str(tmp_path / x.video_path)) for x in found]
            for split, found in rows.items()
        }
        assert data.splits == expected
        assert data.label_names == (
            numbered_labels(classes) if isinstance(classes, int) else classes
        )
        assert says in caplog.text

    return check


_READ_ALL = """
import json, sys
from vivit_jax.annotations.catalog import find_dataset, read_dataset
for name, folder, protocol in json.load(sys.stdin):
    print(read_dataset(find_dataset(name), folder, protocol=protocol))
assert 'jax' not in sys.modules
"""


@pytest.fixture
def check_processes(tmp_path):
    """Compares the results of two processes that order sets differently; neither imports JAX."""

    def check(examples):
        wanted = []
        for number, example in enumerate(examples):
            folder = tmp_path / str(number)
            folder.mkdir()
            _write(folder, example['files'], example['videos'])
            wanted.append((example['dataset'], str(folder), example.get('protocol', '')))
        results = [
            subprocess.run(
                [sys.executable, '-c', _READ_ALL],
                input=json.dumps(wanted),
                env={**os.environ, 'PYTHONHASHSEED': seed, 'PYTHONPATH': os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ('1', '2')
        ]
        assert results[0].count('Annotations(') == len(examples)
        assert results[0] == results[1]

    return check
