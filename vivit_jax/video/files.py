"""Which files and bytes are opened as videos: containers that hold all of their frames."""

import os
import re
import stat

from vivit_jax.video.frame_reader import VideoError, reason

# FFmpeg's names of formats that hold their own frames and open nothing else. It knows others that
# open files and addresses which the content names: playlists, SDP, image sequences.
_CONTAINERS = (
    *('mov', 'matroska', 'avi', 'mpegts', 'mpegtsraw', 'mpeg', 'asf', 'asf_o', 'flv', 'live_flv'),
    *('kux', 'ogg', 'mxf', 'mxg', 'gxf', 'lxf', 'nut', 'nuv', 'nsv', 'rm', 'ivr', 'wtv', 'ty'),
    *('dv', 'dhav', 'hxvs', 'ifv', 'iv8', 'luodat', 'lmlm4', 'nc', 'pva', 'pmp', 'mtv', 'vivo'),
    *('vividas', 'swf', 'smjpeg', 'mpjpeg', 'ivf', 'cine', 'ser', 'r3d', 'filmstrip', 'mv'),
    # Animated pictures, and films of games.
    *('gif', 'apng', 'jpegxl_anim', 'flic', 'anm', 'bink', 'smk', 'roq', 'film_cpk', 'xmv'),
    # Frames without a container.
    *('h261', 'h263', 'h264', 'hevc', 'vvc', 'evc', 'm4v', 'mpegvideo', 'av1', 'obu', 'vc1'),
    *('vc1test', 'cavsvideo', 'avs2', 'avs3', 'apv', 'dirac', 'dnxhd', 'mjpeg', 'mjpeg_2000'),
    'yuv4mpegpipe',
    # Sound, so that a message can tell it.
    *('wav', 'w64', 'aiff', 'caf', 'flac', 'mp3', 'aac'),
)
FORMATS = ','.join(_CONTAINERS)

_SOURCES = 'which names other sources, and none of them is opened: give the video file itself'
_IMAGE = 'which is no video: give a video file, or a folder of numbered JPEG or PNG images'
_FIRST_BYTES = 4096
_KINDS = [  # by the first bytes
    (rb'\s*#EXTM3U', f'an HLS or M3U playlist, {_SOURCES}'),
    (rb'ffconcat version', f'an ffconcat list, {_SOURCES}'),
    (rb'(.*\n)?[mc]=(video|audio|IN IP)', f'an SDP description, {_SOURCES}'),
    (rb'.*<MPD\b', f'a DASH manifest, {_SOURCES}'),
    (rb'.*<(\w+:)?(CompositionPlaylist|AssetMap)\b', f'an IMF package, {_SOURCES}'),
    (rb'.*<(SmoothStreamingMedia|smil|asx|playlist)\b', f'a playlist, {_SOURCES}'),
    (rb'\s*(\[playlist\]|\[reference\]|RTSPtext|(rtsp|https?|mms)://)', f'a playlist, {_SOURCES}'),
    (rb'# VobSub index file', 'a VobSub index, which is no video: give the video file itself'),
    (rb'MLVI', f'a Magic Lantern video, {_SOURCES}'),
    (rb'\xff\xd8\xff|\x89PNG\r|II\*\0|MM\0\*|BM.{4}\0{4}', f'a single image, {_IMAGE}'),
    (rb'RIFF....WEBP|P[1-7]\s', f'a single image, {_IMAGE}'),
]


def check_file(path: str | os.PathLike, name: str):
    """Makes sure that a path is a regular file with content; others may block or never end.

    Raises:
        VideoError: it is not; the message begins with `name`.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        problem = 'no such file'
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            problem = f'cannot be opened ({reason(error)})'
        elif re.search(r'%\d*d|[*?]', name):
            problem += '; of images such as img_%03d.jpg, give the folder'
        raise VideoError(f'{name}: {problem}') from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(f'{name}: is a folder, not a file')
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f'{name}: is a pipe, a socket or a device, not a regular file')
    if not status.st_size:
        raise VideoError(f'{name}: the file is empty (0 bytes)')


def describe_refused(source: str | os.PathLike | bytes) -> str | None:
    """What a file or bytes are that are no video, by their start; None if that is not known.

    Returns:
        Words such as 'an SDP description, which names other sources, …'.
    """
    if isinstance(source, bytes):
        start = source[:_FIRST_BYTES]
    else:
        with open(source, 'rb') as file:
            start = file.read(_FIRST_BYTES)
    start = start.removeprefix(b'\xef\xbb\xbf')  # of UTF-8
    kinds = (kind for pattern, kind in _KINDS if re.match(pattern, start, re.S | re.I))
    return next(kinds, None)
