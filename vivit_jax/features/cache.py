"""Features on disk: a file for each video."""

import csv
import dataclasses
import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from vivit_jax.annotations.dataset import PART_COLUMNS, LabeledVideo
from vivit_jax.atomic_files import replace_text, replacing
from vivit_jax.errors import writing

_log = logging.getLogger(__name__)

_Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Cache:
    """The features of videos, by model, preprocessing and video.

    A file has the features of all views of a video. It is found by the path, the size and the time
    of change of the video, so that a video that was changed is read anew. Files are written whole
    or not at all, and a damaged one counts as missing.

    Attributes:
        folder: where the files lie; need not exist.
        key: of the model and of how clips are made and viewed.
    """

    folder: Path
    key: str

    @classmethod
    def of(cls, folder: Path, model: str, views: tuple[int, int], has_tokens: bool) -> Self:
        """The cache for a model by its key, for views, and for features with or without tokens."""
        return cls(folder, f'{model}_{views[0]}x{views[1]}' + '_tokens' * has_tokens)

    def path(self, video: LabeledVideo) -> Path:
        """The file for a video, whether it exists or not."""
        described = [video.video_path, video.depth_path]
        described += [getattr(video, name) for name in PART_COLUMNS]
        for path in filter(None, described[:2]):
            try:
                found = os.stat(path)
                described += [os.path.realpath(path), found.st_size, found.st_mtime_ns]
            except OSError:
                continue  # reading the video will tell what is wrong
        digest = hashlib.sha256(repr(described).encode()).hexdigest()
        return self.folder / self.key / digest[:2] / f'{digest[2:32]}.npz'

    def has(self, video: LabeledVideo) -> bool:
        """Whether there is a whole file for a video."""
        return zipfile.is_zipfile(self.path(video))

    def check(self, video: LabeledVideo) -> int:
        """The bytes of the file of a video, 0 if there is none; removes a damaged file."""
        return 0 if self.read(video) is None else self.path(video).stat().st_size

    def read(self, video: LabeledVideo) -> _Arrays | None:
        """The arrays of a video, or None if there are none yet; removes a damaged file."""
        path = self.path(video)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            _log.warning('%s is damaged, and was removed: %s', path, error)
            path.unlink(missing_ok=True)
            return None

    def write(self, video: LabeledVideo, arrays: _Arrays):
        """Keeps the arrays of a video.

        Raises:
            UserError: the file cannot be written.
        """
        path = self.path(video)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as unfinished, unfinished.open('wb') as file:
                np.savez(file, **arrays)

    def write_index(self, path: Path, videos: Sequence[LabeledVideo]):
        """Writes a CSV with a line for each video that has features: video_path, part and file.

        Raises:
            UserError: the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(['video_path', *PART_COLUMNS, 'features'])
        for video in videos:
            if self.has(video):
                file = self.path(video)
                part = [getattr(video, name) for name in PART_COLUMNS]
                writer.writerow([video.video_path, *part, file.relative_to(self.folder)])
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text.getvalue())
