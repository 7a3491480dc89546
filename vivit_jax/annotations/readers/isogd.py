"""ChaLearn IsoGD, colour and depth: the official lists, and lists of frame folders."""

import os
import re
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import class_at, find_lists, read_lines
from vivit_jax.annotations.readers.video_folder import VideoFolder, is_video
from vivit_jax.heads import numbered_labels

_WORDS = {'train': 'train', 'val': 'valid', 'test': 'test'}


def read(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Reads `{train,valid,test}_list.txt`, or `{train,valid,test}.txt` of the frame lists.

    Official lines are `color depth label` with labels from 1; lines of frame lists are
    `folder num_frames label` with labels from 0. Classes are numbers from 0.

    Raises:
        AnnotationError: no such files, or a line or a label that cannot be.
    """
    names = numbered_labels(dataset.num_classes)
    lists = {split: [f'{word}_list.txt', f'{word}.txt'] for split, word in _WORDS.items()}
    files = find_lists(annotations, lists, ('annotations', 'rgb', 'IsoGD/rgb'))
    videos = VideoFolder(root)
    splits = {
        split: [_line(place, text, names, videos) for place, text in read_lines(path)]
        for split, path in files.items()
    }
    return Annotations(splits, {'label': names})


def _line(place: str, text: str, names: tuple[str, ...], videos: VideoFolder) -> Annotation:
    parts = text.split()
    if len(parts) not in (2, 3):
        raise AnnotationError(
            f'{place}: should be "color depth label" or "folder num_frames label", not {text!r}'
        )
    values = {'video_path': videos.find([parts[0]])}
    is_frame_list = parts[1].isdecimal()
    values['depth_path'] = videos.find([_depth_of(parts[0]) if is_frame_list else parts[1]])
    if is_frame_list and not is_video(values['video_path']):
        values['num_frames'] = parts[1]
    if len(parts) == 3:  # the test list has labels only since the challenge is over
        values['label'] = class_at(names, parts[2], place, first=0 if is_frame_list else 1)
    return Annotation(place, values)


def _depth_of(path: str) -> str:
    """`train/001/K_00001` of `train/001/M_00001`; M is colour and K is depth."""
    folder, name = os.path.split(path)
    return os.path.join(folder, re.sub('^M_', 'K_', name))
