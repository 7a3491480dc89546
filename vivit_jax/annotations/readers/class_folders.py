"""A folder for each class, within a folder for each split or without splits."""

import logging
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import SPLIT_NAMES
from vivit_jax.annotations.readers.video_folder import VideoFolder, holds_images, is_video
from vivit_jax.errors import list_some

_log = logging.getLogger(__name__)

_VAL_FRACTION = 0.2  # of the videos that are in no split
_SPLIT_WORDS = {word for words in SPLIT_NAMES.values() for word in words}

_Classes = dict[str, list[str]]  # paths of videos by class


def read(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Lists `<split>/<class>/<video>`, or `<class>/<video>` if there are no splits.

    The classes are the sorted folders of `train`, or else the sorted folders that hold videos.
    Folders of frames may stand in for videos. Without splits a part of the videos is meant for
    validation.

    Raises:
        AnnotationError: no folder of a class holds a video.
    """
    names = VideoFolder(root).names()
    folders = {
        split: root / next(name for name in names if name.lower() in words)
        for split, words in SPLIT_NAMES.items()
        if any(name.lower() in words for name in names)
    }
    listed = {split: _list_classes(folder) for split, folder in folders.items()}
    has_splits = any(any(classes.values()) for classes, _ in listed.values())
    if has_splits:
        others = [str(root / name) for name in names if root / name not in folders.values()]
    else:
        others = []
        listed = {'train': _list_unsplit(root, names)}
    others += [path for _, of_split in listed.values() for path in of_split]
    if others:
        _log.warning(
            'left out %d files and folders that are no videos of a class, such as %s',
            len(others),
            others[0],
        )
    splits = {
        split: [
            Annotation(path, {'video_path': path, 'label': label})
            for label, paths in classes.items()
            for path in paths
        ]
        for split, (classes, _) in listed.items()
    }
    label_names = {'label': tuple(listed['train'][0])} if 'train' in listed else {}
    return Annotations(splits, label_names, val_fraction=0.0 if has_splits else _VAL_FRACTION)


def _list_classes(folder: Path) -> tuple[_Classes, list[str]]:
    """The videos of each class, and what else lies in the folder and the folders of classes."""
    videos, classes, others = VideoFolder(folder), {}, []
    for label in videos.names():
        if label.startswith('.') or not (folder / label).is_dir():
            others.append(str(folder / label))
            continue
        classes[label] = []
        for name in videos.names(label):
            path = folder / label / name
            is_usable = not name.startswith('.') and (is_video(name) or holds_images(path))
            (classes[label] if is_usable else others).append(str(path))
    return classes, others


def _list_unsplit(root: Path, names: list[str]) -> tuple[_Classes, list[str]]:
    """Likewise for classes that hold videos."""
    classes, others = _list_classes(root)
    others += [str(root / label) for label, paths in classes.items() if not paths]
    classes = {label: paths for label, paths in classes.items() if paths}
    # Videos that lie in train/ and val/ without folders of classes are no classes.
    if all(label.lower() in _SPLIT_WORDS for label in classes):
        flat = [f'{label}/{Path(paths[0]).name}' for label, paths in classes.items()]
        flat += filter(is_video, names)
        raise AnnotationError(
            f'{root.absolute()} has no folder for each class with videos in it'
            f'{f" (found {list_some(flat)})" if flat else ""}: videos should lie in '
            '<class>/, or in train/<class>/, val/<class>/ and test/<class>/. Otherwise write a CSV '
            'with the header "video_path,label" and give --config.data.train_csv'
        )
    return classes, others
