"""UCF101: three splits, with the class in the path."""

from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import find_lists, ordered_names, read_lines
from vivit_jax.annotations.readers.video_folder import VideoFolder

_FOLDERS = ('ucfTrainTestlist', 'annotations')


def read(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Reads `classInd.txt`, `trainlist0<protocol>.txt` and `testlist0<protocol>.txt`.

    Class and video are found whatever their capitals: copies differ in `HandStandPushups`.

    Raises:
        AnnotationError: no such files, an unknown class, or a label out of range.
    """
    path = find_lists(annotations, {'classes': ['classInd.txt']}, _FOLDERS)['classes']
    pairs = ((place, *text.partition(' ')[::2]) for place, text in read_lines(path))
    names = ordered_names(path, pairs, first=1)
    lists = {split: [f'{split}list0{protocol}.txt'] for split in ('train', 'test')}
    videos = VideoFolder(root, ignore_case=True)
    splits = {
        split: [_line(place, text, names, videos) for place, text in read_lines(path)]
        for split, path in find_lists(annotations, lists, _FOLDERS).items()
    }
    return Annotations(splits, {'label': names})


def _line(place: str, text: str, names: tuple[str, ...], videos: VideoFolder) -> Annotation:
    path, _, number = text.partition(' ')
    folder = path.split('/')[0]
    label = next((name for name in names if name.casefold() == folder.casefold()), None)
    if label is None:
        raise AnnotationError(f'{place}: the folder {folder!r} is no class of classInd.txt')
    # Some lists of test videos count from 0, so the folder is what says the class.
    if number and not (number.isdecimal() and int(number) <= len(names)):
        raise AnnotationError(f'{place}: label {number!r} is none of 1 … {len(names)}')
    places = (path, f'UCF-101/{path}', f'videos/{path}')
    return Annotation(place, {'video_path': videos.find(places), 'label': label})
