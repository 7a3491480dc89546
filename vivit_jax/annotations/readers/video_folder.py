"""Finding the videos that annotations name."""

import os
from collections.abc import Iterable

from vivit_jax.annotations.annotation import AnnotationError

_VIDEO_EXTENSIONS = {
    *('.3gp', '.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4'),
    *('.mpeg', '.mpg', '.ogv', '.ts', '.webm', '.wmv'),
}
_IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png')


def is_video(name: str) -> bool:
    """Whether a file name has the extension of a video, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in _VIDEO_EXTENSIONS


def holds_images(folder: str | os.PathLike) -> bool:
    """Whether a path is a folder with an image in it, and so may be a folder of frames."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.lower().endswith(_IMAGE_EXTENSIONS) for entry in entries)
    except OSError:
        return False


class VideoFolder:
    """Finds videos under a folder, listing each of its folders once.

    Args:
        root: the folder.
        ignore_case: upper and lower case are the same in names.
    """

    def __init__(self, root: str | os.PathLike, *, ignore_case: bool = False):
        self._root = os.fspath(root)
        self._key = str.casefold if ignore_case else str
        self._listed = {}

    def names(self, folder: str = '') -> list[str]:
        """Sorted names in a folder; none where it does not exist."""
        return sorted(self._list(folder)[0].values())

    def find(self, candidates: Iterable[str]) -> str:
        """Path of the first of some files that exists.

        A video may have another extension than asked for, or be a folder of frames with its name.
        Where nothing exists, the path is the candidate in the deepest folder that does.

        Args:
            candidates: paths relative to the root.
        """
        near = []
        for candidate in candidates:
            folder, name = os.path.split(candidate)
            names, stems = self._list(folder)
            key = self._key(name)
            stem = os.path.splitext(key)[0] if is_video(key) else key
            found = names.get(key) or stems.get(stem) or names.get(stem)
            if found:
                return os.path.join(self._path(folder), found)
            near.append((folder.count('/') + bool(folder) if names else -1, candidate))
        deepest = max(near, key=lambda item: item[0])
        return os.path.join(self._root, deepest[1])

    def _path(self, folder: str) -> str:
        path = os.path.join(self._root, folder)
        if self._key is str or not folder or os.path.isdir(path):
            return path
        parent, name = os.path.split(folder)
        return os.path.join(self._path(parent), self._list(parent)[0].get(self._key(name), name))

    def _list(self, folder: str) -> tuple[dict[str, str], dict[str, str]]:
        """The names in a folder, and the videos by their name without extension."""
        if folder not in self._listed:
            try:
                names = sorted(os.listdir(self._path(folder)))
            except OSError as error:
                if not folder and isinstance(error, PermissionError):
                    raise AnnotationError(
                        f'the folder {self._root} cannot be read (Permission denied)'
                    ) from error
                names = []
            stems = {}
            for name in filter(is_video, names):
                stems.setdefault(self._key(os.path.splitext(name)[0]), name)
            self._listed[folder] = {self._key(name): name for name in names}, stems
        return self._listed[folder]
