"""The videos that a path stands for."""

import csv
import os
from pathlib import Path

from vivit_jax.annotations.readers.text_files import read_lines, read_table
from vivit_jax.annotations.readers.video_folder import is_video
from vivit_jax.errors import UserError
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.image_reader import is_frame


def find_videos(path: str) -> list[str]:
    """Lists the videos of a folder and of the folders in it, sorted by path.

    A folder with video files stands for them; a folder with numbered images, and no video file,
    is one video. Hidden files and folders are left out.

    Args:
        path: a folder; any other path stands for itself.

    Raises:
        VideoError: a folder without videos, or with a folder that cannot be read.
    """

    def refuse(error: OSError):
        raise VideoError(f'{error.filename}: cannot be read ({error.strerror})') from error

    if not os.path.isdir(path):
        return [path]
    found = []
    for folder, subfolders, files in os.walk(path, onerror=refuse):
        subfolders[:] = [x for x in subfolders if not x.startswith('.') and x != 'lost+found']
        videos = [name for name in files if is_video(name) and not name.startswith('.')]
        found += [os.path.join(folder, name) for name in videos]
        if not videos and any(map(is_frame, files)):
            found.append(folder)
    if not found:
        raise VideoError(
            f'{path}: holds no videos: neither files such as a.mp4, nor folders with frames such '
            'as 00001.jpg'
        )
    return sorted(found)


def read_list(path: str) -> list[tuple[str, str]]:
    """Reads a list of videos: a path a line, or a CSV with the column `video_path`.

    Returns:
        For each video its path, and the path of its depth, which is empty if the CSV has no column
        `depth_path`. Those in the file are relative to the folder of the file.

    Raises:
        UserError: the file cannot be read, or names no video.
    """
    lines = read_lines(Path(path))
    if lines and 'video_path' in next(csv.reader([lines[0][1]])):
        rows = read_table(Path(path), ['video_path'])
        found = [
            (place, values['video_path'], values.get('depth_path', '')) for place, values in rows
        ]
    else:
        found = [(place, video, '') for place, video in lines]
    if not found:
        raise UserError(f'{path}: names no videos')
    for place, video, _ in found:
        if not video:
            raise UserError(f'{place}: no video_path')
    folder = os.path.dirname(path)
    return [
        (os.path.join(folder, video), os.path.join(folder, depth) if depth else '')
        for _, video, depth in found
    ]
