"""The videos that a list or a folder names, without labels."""

import os
from pathlib import Path

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.annotations.check import videos_of
from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.annotations.readers.csv_files import read_csv_files
from vivit_jax.errors import UserError, near_paths
from vivit_jax.video.find_videos import find_videos
from vivit_jax.video.frame_reader import VideoError


def list_videos(data: str) -> list[LabeledVideo]:
    """Lists videos; their label is 0.

    Args:
        data: a CSV with the column `video_path` or `depth_path`, and optionally the parts of
            videos, as `data.train_csv` of a config; or a folder with videos, also in folders in it.

    Raises:
        UserError: there is no such list or folder, or no video in it.
    """
    if not os.path.exists(data):
        raise UserError(f'--data={data} does not exist{near_paths(data)}')
    if os.path.isdir(data):
        try:
            return [LabeledVideo(path, 0) for path in find_videos(data)]
        except VideoError as error:
            raise UserError(str(error)) from error
    if Path(data).suffix != '.csv':
        raise UserError(
            f'--data={data} must be a .csv with the header "video_path", or a folder of videos'
        )
    lines = read_csv_files({'all': data}, '', ()).splits['all']
    videos = videos_of(lines, [0] * len(lines), None)
    missing = [video.video_path for video in videos if not os.path.exists(video.video_path)]
    if len(missing) == len(videos):
        raise AnnotationError(f'{data}: none of its videos exists, such as {missing[0]}')
    return videos
