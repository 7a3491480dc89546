"""HMDB51: three splits, in a file for each class and split."""

from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import read_lines
from vivit_jax.annotations.readers.video_folder import VideoFolder

_FOLDERS = ('testTrainMulti_7030_splits', 'annotations')
_SPLITS = {'1': 'train', '2': 'test', '0': None}  # 0: not used in this split


def read(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Reads every `<class>_test_split<protocol>.txt`; the classes are sorted.

    Raises:
        AnnotationError: no such files, or a line that puts a video in no known split.
    """
    end = f'_test_split{protocol}.txt'
    folders = [annotations, *(annotations / folder for folder in _FOLDERS)]
    found = ({path.name.removesuffix(end): path for path in x.glob(f'*{end}')} for x in folders)
    files = next(filter(None, found), {})
    if not files:
        raise AnnotationError(
            f'no annotation files in {annotations.absolute()}: looked for <class>{end}, there and '
            f'in {" and ".join(f"{folder}/" for folder in _FOLDERS)}'
        )
    videos = VideoFolder(root)
    splits = {'train': [], 'test': []}
    for label in sorted(files):
        for place, text in read_lines(files[label]):
            video, _, flag = text.rpartition(' ')  # names may contain spaces
            if flag not in _SPLITS or not video:
                raise AnnotationError(f'{place}: should end in 0, 1 or 2, not in {flag!r}')
            if _SPLITS[flag]:
                path = f'{label}/{video.strip()}'
                values = {'video_path': videos.find([path, f'videos/{path}']), 'label': label}
                splits[_SPLITS[flag]].append(Annotation(place, values))
    return Annotations(splits, {'label': tuple(sorted(files))})
