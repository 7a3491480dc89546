"""Datasets whose file names are the annotation: NTU RGB+D, ETRI-Activity3D, MSR-Action3D."""

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import class_at, read_lines
from vivit_jax.annotations.readers.video_folder import is_video

_log = logging.getLogger(__name__)

# What may follow the code in the name of a colour video, or of a depth video. Other ends, such as
# `_ir`, are other sensors'.
_ENDS = {'rgb': ('', '_rgb', '_color'), 'depth': ('', '_depth')}
# The sensor whose videos a folder holds, by a part of its name; in other folders they are colour.
_SENSORS = ('depth', 'skeleton', 'infrared')

_NTU60_SUBJECTS = {1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38}
_NTU120_SUBJECTS = _NTU60_SUBJECTS | {
    *(45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78, *range(80, 87), 89, *range(91, 96)),
    *(97, 98, 100, 103),
}
_MSR_ACTIONS = (
    'high_arm_wave',
    'horizontal_arm_wave',
    'hammer',
    'hand_catch',
    'forward_punch',
    'high_throw',
    'draw_x',
    'draw_tick',
    'draw_circle',
    'hand_clap',
    'two_hand_wave',
    'side_boxing',
    'bend',
    'forward_kick',
    'side_kick',
    'jogging',
    'tennis_swing',
    'tennis_serve',
    'golf_swing',
    'pickup_and_throw',
)


@dataclasses.dataclass(frozen=True)
class _Code:
    """How a name is read, and which of its numbers put it in the training split."""

    pattern: str
    example: str
    is_train: Mapping[str, Callable[[Mapping[str, int]], bool]]
    class_names: tuple[str, ...] | None = None


_CODES = {
    'ntu60': _Code(
        # Setups up to 17: the others belong to NTU RGB+D 120.
        r'S(?P<setup>00[1-9]|01[0-7])C(?P<camera>\d{3})P(?P<subject>\d{3})R\d{3}A(?P<action>\d{3})',
        'S001C002P003R002A013_rgb.avi',
        {
            'cross_subject': lambda code: code['subject'] in _NTU60_SUBJECTS,
            'cross_view': lambda code: code['camera'] in (2, 3),
        },
    ),
    'ntu120': _Code(
        r'S(?P<setup>\d{3})C(?P<camera>\d{3})P(?P<subject>\d{3})R\d{3}A(?P<action>\d{3})',
        'S018C001P041R001A061_rgb.avi',
        {
            'cross_subject': lambda code: code['subject'] in _NTU120_SUBJECTS,
            'cross_setup': lambda code: code['setup'] % 2 == 0,
        },
    ),
    'etri_activity3d': _Code(
        r'A(?P<action>\d{3})_P(?P<subject>\d{3})_G\d{3}_C\d{3}',
        'A001_P001_G001_C001.mp4',
        {
            'cross_subject': lambda code: code['subject'] % 3 != 0,
            # People 1 to 50 are elderly; the reading of the protocol that trains on them.
            'cross_age': lambda code: code['subject'] <= 50,
        },
    ),
    'msr_action3d': _Code(
        r'a(?P<action>\d\d)_s(?P<subject>\d\d)_e\d\d',
        'a01_s01_e01_rgb.avi',
        {'cross_subject': lambda code: code['subject'] % 2 == 1},
        _MSR_ACTIONS,
    ),
}


def read(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Lists the videos, or folders of frames, under a folder by their names, with their depth.

    NTU RGB+D may have lists, `@CS/{train,valid}.txt` or `@CV/{train,valid}.txt` for its protocols
    `cross_subject` and `cross_view`, with lines `name num_frames label`; they win, and `valid` is
    the test split. Depth videos have the same codes. They lie in a folder with `depth` in its name,
    or have a name that ends in `_depth`; where there is no color video, the depth video stands for
    it, too. Folders of other sensors are left out.

    Raises:
        AnnotationError: no such names, or an impossible action.
    """
    code = _CODES[dataset.name]
    actions = range(1, dataset.num_classes + 1)
    names = code.class_names or tuple(f'A{action:03d}' for action in actions)
    samples, depths = _samples(root, code)
    folder = annotations / {'cross_subject': '@CS', 'cross_view': '@CV'}.get(protocol, '@')
    if folder.is_dir() and dataset.name.startswith('ntu'):
        splits = {'train': folder / 'train.txt', 'test': folder / 'valid.txt'}
        lists = {
            split: _listed(path, root, re.compile(code.pattern), samples, names, depths)
            for split, path in splits.items()
            if path.is_file()
        }
        return Annotations(lists, {'label': names})
    if not samples and not depths:
        raise AnnotationError(
            f'no videos of {dataset.name} under {root.absolute()}: names should be like '
            f'{code.example}'
        )
    splits = {'train': [], 'test': []}
    for name in sorted(samples.keys() | depths.keys()):
        place = samples.get(name) or depths[name]
        groups = re.match(code.pattern, name).groupdict()
        numbers = {key: int(value) for key, value in groups.items()}
        label = class_at(names, numbers['action'], place, first=1)
        split = 'train' if code.is_train[protocol](numbers) else 'test'
        values = {'video_path': place, 'label': label, 'subject': groups['subject']}
        if name in depths:
            values['depth_path'] = depths[name]
        splits[split].append(Annotation(place, values))
    return Annotations(splits, {'label': names})


def _samples(root: Path, code: _Code) -> tuple[dict[str, str], dict[str, str]]:
    """Paths of the color videos by their codes, and of the depth videos."""
    found, strange = {'rgb': {}, 'depth': {}}, []
    for folder, folders, files in os.walk(root, followlinks=True):
        sensor = _sensor_of(os.path.relpath(folder, root))
        if sensor not in found:
            folders.clear()
            continue
        folders.sort()
        names = [*sorted(filter(is_video, files)), *folders]
        matches = {name: re.match(code.pattern, name) for name in names}
        for name, match in matches.items():
            path = os.path.join(folder, name)
            if match:
                stem = os.path.splitext(name)[0] if is_video(name) else name
                kind = 'depth' if stem.endswith('_depth') else sensor
                if stem[match.end() :] in _ENDS[kind]:
                    found[kind].setdefault(match[0], path)
            elif is_video(name):
                strange.append(path)
        folders[:] = [name for name in folders if not matches[name]]
    if strange:
        _log.warning(
            'left out %d videos whose names are not like %s, such as %s',
            len(strange),
            code.example,
            min(strange),
        )
    return found['rgb'], found['depth']


def _sensor_of(folder: str) -> str:
    """`rgb`, or the other sensor that a part of a path names."""
    return next((sensor for sensor in _SENSORS if sensor in folder.lower()), 'rgb')


def _listed(
    path: Path,
    root: Path,
    pattern: re.Pattern,
    samples: dict[str, str],
    names: tuple[str, ...],
    depths: dict[str, str],
) -> list[Annotation]:
    lines = []
    for place, text in read_lines(path):
        name, num_frames, label = [*text.split(), '', ''][:3]
        match = pattern.match(name)
        if not match or not num_frames.isdecimal():
            raise AnnotationError(f'{place}: should be "name num_frames label", not {text!r}')
        values = {'video_path': samples.get(match[0], str(root / name))}
        values['label'] = class_at(names, label, place)
        values['subject'] = match['subject']
        if match[0] in depths:
            values['depth_path'] = depths[match[0]]
        if not is_video(values['video_path']):
            values['num_frames'] = num_frames
        lines.append(Annotation(place, values))
    return lines
