"""The published datasets that can be read: splits, classes and usual settings."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers import (
    class_folders,
    coded_names,
    diving48,
    epic_kitchens,
    hmdb51,
    isogd,
    kinetics,
    lists,
    moments,
    something,
    ucf101,
)
from vivit_jax.errors import UserError, near_paths, near_words

_log = logging.getLogger(__name__)

# Clips of ViViT's training on the dataset, or of the models that were published for it.
_KINETICS = {'num_frames': 32, 'frame_stride': 2, 'short_side': 256, 'crop_size': 224}
_EPIC_KITCHENS = _KINETICS | {'frame_stride': 1}
_SOMETHING = {'num_frames': 32, 'frame_stride': 1, 'short_side': 288, 'crop_size': 256}
_SEGMENTS_16 = {'num_frames': 16, 'sampling': 'segments', 'short_side': 256, 'crop_size': 224}
_SEGMENTS_32 = {'num_frames': 32, 'sampling': 'segments', 'short_side': 240, 'crop_size': 224}
_LEFT_RIGHT = (('left', 'right'),)

_ALL = (
    DatasetInfo(
        name='kinetics400',
        read=kinetics.read,
        num_classes=400,
        splits={'': {'train': 246_534, 'val': 19_906, 'test': 39_805}},
        source='CVDF csv',
        sampling=_KINETICS,
        views='4x3',
    ),
    DatasetInfo(
        name='kinetics600',
        read=kinetics.read,
        num_classes=600,
        splits={'': {'train': 383_393, 'val': 27_910}},
        source='MMAction2 copy',
        sampling=_KINETICS,
        views='4x3',
    ),
    DatasetInfo(
        name='kinetics700',
        read=kinetics.read,
        num_classes=700,
        splits={'': {'train': 542_357, 'val': 34_824}},
        source='MMAction2 copy',
        sampling=_KINETICS,
        views='4x3',
    ),
    DatasetInfo(
        name='kinetics700_2020',
        read=kinetics.read,
        num_classes=700,
        splits={'': {'train': 536_000, 'val': 33_900, 'test': 64_500}},
        source='papers, rounded',
        sampling=_KINETICS,
        views='4x3',
    ),
    DatasetInfo(
        name='ssv1',
        read=something.read_v1,
        num_classes=174,
        splits={'': {'train': 86_017, 'val': 11_522, 'test': 10_960}},
        source='papers',
        flip=False,
        flip_swaps=_LEFT_RIGHT,
        sampling=_SOMETHING,
        views='4x3',
    ),
    DatasetInfo(
        name='ssv2',
        read=something.read_v2,
        num_classes=174,
        splits={'': {'train': 168_913, 'val': 24_777, 'test': 27_157}},
        source='provider',
        flip=False,
        flip_swaps=_LEFT_RIGHT,
        sampling=_SOMETHING,
        views='4x3',
    ),
    DatasetInfo(
        name='jester',
        read=something.read_v1,
        num_classes=27,
        splits={'': {'train': 118_562, 'val': 14_787, 'test': 14_743}},
        source='papers',
        flip=False,
        flip_swaps=(*_LEFT_RIGHT, ('clockwise', 'counterclockwise')),
        sampling=_SOMETHING,
        views='4x3',
    ),
    DatasetInfo(
        name='epic_kitchens100',
        read=epic_kitchens.read,
        num_classes={'verb': 97, 'noun': 300},
        splits={'': {'train': 67_217, 'val': 9_668, 'test': 13_092}},
        source='official csv',
        label_columns=('verb', 'noun'),
        sampling=_EPIC_KITCHENS,
        views='4x1',
    ),
    DatasetInfo(
        name='ucf101',
        read=ucf101.read,
        num_classes=101,
        splits={
            '1': {'train': 9_537, 'test': 3_783},
            '2': {'train': 9_586, 'test': 3_734},
            '3': {'train': 9_624, 'test': 3_696},
        },
        source='official lists',
        sampling=_SEGMENTS_16,
    ),
    DatasetInfo(
        name='hmdb51',
        read=hmdb51.read,
        num_classes=51,
        splits={split: {'train': 3_570, 'test': 1_530} for split in ('1', '2', '3')},
        source='70 and 30 of each class',
        sampling=_SEGMENTS_16,
    ),
    DatasetInfo(
        name='diving48',
        read=diving48.read,
        num_classes=48,
        splits={'': {'train': 15_027, 'test': 1_970}},
        source='papers',
        flip=False,
        sampling=_SEGMENTS_16,
    ),
    DatasetInfo(
        name='moments_in_time',
        read=moments.read,
        num_classes=339,
        splits={'': {'train': 802_000, 'val': 33_900}},
        source='papers, rounded',
        sampling=_KINETICS,
        views='4x3',
    ),
    DatasetInfo(
        name='moments_in_time_v2',
        read=moments.read,
        num_classes=305,
        splits={'': {'train': 727_000, 'val': 30_500}},
        source='papers, rounded',
        sampling=_KINETICS,
        views='4x3',
    ),
    DatasetInfo(
        name='ntu60',
        read=coded_names.read,
        num_classes=60,
        splits={
            'cross_subject': {'train': 40_320, 'test': 16_560},
            'cross_view': {'train': 37_920, 'test': 18_960},
        },
        source='all names',
        sampling=_SEGMENTS_32,
    ),
    DatasetInfo(
        name='ntu120',
        read=coded_names.read,
        num_classes=120,
        splits={'cross_subject': {'train': 63_000, 'test': 51_000}, 'cross_setup': {}},
        source='papers, rounded',
        sampling=_SEGMENTS_32,
    ),
    DatasetInfo(
        name='isogd',
        read=isogd.read,
        num_classes=249,
        splits={'': {'train': 35_878, 'val': 5_784, 'test': 6_271}},
        source='provider',
        flip=False,
        sampling=_SEGMENTS_32,
    ),
    DatasetInfo(
        name='etri_activity3d',
        read=coded_names.read,
        num_classes=55,
        splits={'cross_subject': {}, 'cross_age': {}},
        sampling=_SEGMENTS_16,
    ),
    DatasetInfo(
        name='msr_action3d',
        read=coded_names.read,
        num_classes=20,
        splits={'cross_subject': {'train': 283, 'test': 273}},
        source='copy of 556 videos',
        sampling=_SEGMENTS_16 | {'short_side': 240},
    ),
    # Lists of any videos: mirroring may change their classes.
    DatasetInfo(
        name='mmaction2',
        read=lists.read_mmaction2,
        num_classes=None,
        splits={'': {}, '1': {}, '2': {}, '3': {}},
        flip=False,
    ),
    DatasetInfo(
        name='pyslowfast',
        read=lists.read_pyslowfast,
        num_classes=None,
        splits={'': {}},
        flip=False,
    ),
    DatasetInfo(
        name='class_folders',
        read=class_folders.read,
        num_classes=None,
        splits={'': {}},
        flip=False,
    ),
)

DATASETS: Mapping[str, DatasetInfo] = {dataset.name: dataset for dataset in _ALL}


def find_dataset(name: str) -> DatasetInfo:
    """Finds the description of a dataset.

    Raises:
        UserError: unknown; the message offers the near names.
    """
    if name not in DATASETS:
        raise UserError(f'unknown dataset {name!r}{near_words(name, DATASETS)}')
    return DATASETS[name]


def read_dataset(
    dataset: DatasetInfo, root: str | Path, *, annotations: str | Path = '', protocol: str = ''
) -> Annotations:
    """Reads the annotation files of a dataset. Splits without labels are left out.

    Args:
        dataset: its description.
        root: folder of the videos.
        annotations: folder of the annotation files; '': the root.
        protocol: one of `dataset.protocols`; '': the first.

    Raises:
        AnnotationError: a folder or file is missing, or cannot be used.
        UserError: unknown protocol.
    """
    protocol = protocol or dataset.protocols[0]
    if protocol not in dataset.protocols:
        known = ', '.join(filter(None, dataset.protocols)) or 'no other than the default'
        raise UserError(f'{dataset.name} has no protocol {protocol!r}; known: {known}')
    folders = Path(root), Path(annotations or root)
    for folder in folders:
        if not os.path.isdir(folder):
            raise AnnotationError(
                f'{dataset.name}: there is no folder {folder.absolute()}{near_paths(folder)}'
            )
    found = dataset.read(*folders, dataset, protocol)
    splits = {
        split: lines for split, lines in found.splits.items() if _has_labels(dataset, split, lines)
    }
    if not splits:
        raise AnnotationError(f'{dataset.name}: {folders[1].absolute()} has no video with a label')
    expected = dataset.splits[protocol]
    return dataclasses.replace(
        found,
        splits=splits,
        expected={split: f'{dataset.source}: {size:,}' for split, size in expected.items()},
    )


def _has_labels(dataset: DatasetInfo, split: str, lines: list[Annotation]) -> bool:
    if any(column in line.values for line in lines for column in dataset.label_columns):
        return True
    _log.info('%s: the split %s is left out: it has no videos with labels', dataset.name, split)
    return False
