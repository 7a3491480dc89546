"""The run folder: the settings of a run beside its results."""

import csv
import importlib.metadata
import json
import logging
import platform
import shlex
import sys
from pathlib import Path

import jax
from ml_collections import ConfigDict

import vivit_jax
from vivit_jax.annotations.check import most_bad
from vivit_jax.annotations.dataset import Dataset
from vivit_jax.annotations.validation_split import check_drawn_lists, drawn_lists
from vivit_jax.atomic_files import replace_text
from vivit_jax.config.load import differences, flatten
from vivit_jax.config.schema import KEYS
from vivit_jax.errors import UserError, writing
from vivit_jax.heads import by_head
from vivit_jax.weights.report import Report

_log = logging.getLogger(__name__)

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'av', 'numpy')


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that results depend on."""
    found = {'vivit_jax': vivit_jax.__version__, 'python': platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def start_run(folder: Path, config: ConfigDict, dataset: Dataset, report: Report | None = None):
    """Writes config.json, command.txt, versions.json and label_map.txt, or checks them.

    A report of the weights that a run starts from becomes init_report.txt. Several heads have a
    label_map_<head>.txt each. If the validation split was drawn, train_videos.csv and
    val_videos.csv list the videos. A resumed run may change the keys whose `may_change` is set in
    `config.schema`, and raise those whose `may_grow` is set; changes are logged.

    Raises:
        UserError: the folder is of another config, or has other classes or another drawn split.
    """
    config_file = folder / 'config.json'
    label_files = {
        folder / (f'label_map_{head}.txt' if head else 'label_map.txt'): names
        for head, names in by_head(dataset.label_names).items()
    }
    new = flatten(config)
    if config_file.exists():
        allowed, forbidden = differences(json.loads(config_file.read_text('utf-8')), new)
        if forbidden:
            raise UserError(
                f'{folder} is the run of another config. These keys differ and may not:\n  '
                + '\n  '.join(forbidden)
                + '\nGive the old values to go on with this run, or a new --workdir for a new run, '
                f'which can start from these weights with --config.init_from={folder}'
            )
        for line in allowed:
            _log.info('Differs from the run so far, and may: %s', line)
            if KEYS[line.partition(':')[0]].may_grow:
                _log.info(
                    'The run becomes longer: the learning rate follows the longer schedule from '
                    'the newest checkpoint on'
                )
        for path, names in label_files.items():
            if tuple(path.read_text('utf-8').splitlines()) != names:
                raise UserError(
                    f'the classes of the data are not those of {path}: labels would change '
                    'their meaning; restore the annotations or start a new --workdir'
                )
        check_drawn_lists(folder, dataset, config.data.label_columns)
    if jax.process_index():
        return
    for path, names in label_files.items():
        replace_text(path, '\n'.join(names) + '\n')
    for name, text in drawn_lists(dataset, config.data.label_columns).items():
        replace_text(folder / name, text)
    if report:
        replace_text(folder / 'init_report.txt', f'{report}\n')
    replace_text(folder / 'versions.json', json.dumps(versions(), indent=2) + '\n')
    replace_text(config_file, json.dumps(new, indent=2) + '\n')
    with (folder / 'command.txt').open('a', encoding='utf-8') as file:
        file.write(shlex.join([Path(sys.executable).name, *sys.argv]) + '\n')


class BadVideos:
    """Counts and lists unusable videos in `bad_videos.csv`, each once in any number of restarts.

    Args:
        folder: the run folder.
        num_videos: of the training split.
        max_fraction: fraction of the videos that may be unusable, see `most_bad`.
        host: index of this process; every host but the first keeps a list of its own.
    """

    def __init__(self, folder: Path, num_videos: int, max_fraction: float, host: int = 0):
        self._path = folder / (f'bad_videos_{host}.csv' if host else 'bad_videos.csv')
        self._num_videos = num_videos
        self._max_fraction = max_fraction
        self._names = set()
        if self._path.exists():
            with self._path.open(newline='', encoding='utf-8') as file:
                self._names = {row['video'] for row in csv.DictReader(file)}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, reason: str):
        """Lists a video.

        Raises:
            UserError: too many of the videos are unusable, or the list cannot be written.
        """
        if name in self._names:
            return
        is_new = not self._path.exists()
        with writing(self._path), self._path.open('a', newline='', encoding='utf-8') as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(['video', 'reason'])
            writer.writerow([name, reason])
        self._names.add(name)
        _log.warning('Replaced by another video in training: %s', reason)
        if len(self) > most_bad(self._num_videos, self._max_fraction):
            raise UserError(
                f'{len(self)} of {self._num_videos} training videos are unusable, more than '
                f'data.max_bad_fraction={self._max_fraction} allows; they are listed in '
                f'{self._path}: mend them, take them out of the list, or raise that limit'
            )
