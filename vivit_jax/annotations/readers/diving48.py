"""Diving48 with the labels of version 2."""

from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import class_at, find_lists, read_json
from vivit_jax.annotations.readers.video_folder import VideoFolder

_FOLDERS = ('annotations',)


def read(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Reads `Diving48_V2_{train,test}.json` and `Diving48_vocab.json`.

    A class is named by its four attributes, joined by `+`. A video is its dive, so that the frame
    numbers of the lists say nothing more.

    Raises:
        AnnotationError: no such files, or a label out of range.
    """
    vocab = find_lists(annotations, {'vocab': ['Diving48_vocab.json']}, _FOLDERS)['vocab']
    names = tuple('+'.join(map(str, attributes)) for attributes in read_json(vocab, list))
    lists = {split: [f'Diving48_V2_{split}.json'] for split in ('train', 'test')}
    videos = VideoFolder(root)
    splits = {
        split: _lines(path, names, videos)
        for split, path in find_lists(annotations, lists, _FOLDERS).items()
    }
    return Annotations(splits, {'label': names})


def _lines(path: Path, names: tuple[str, ...], videos: VideoFolder) -> list[Annotation]:
    lines = []
    for number, entry in enumerate(read_json(path, list), 1):
        place = f'{path}, entry {number}'
        if not isinstance(entry, dict) or not {'vid_name', 'label'} <= entry.keys():
            raise AnnotationError(f'{place}: should have "vid_name" and "label"')
        name = f'{entry["vid_name"]}.mp4'
        values = {
            'video_path': videos.find([name, f'rgb/{name}', f'videos/{name}']),
            'label': class_at(names, entry['label'], place),
        }
        lines.append(Annotation(place, values))
    return lines
