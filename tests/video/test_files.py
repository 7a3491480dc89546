"""Files and bytes that would make FFmpeg open something else, or wait for ever."""

import os
import re
import shutil
import socket
import struct
import subprocess
import sys

import av
import numpy as np
import pytest
from remux import remux

from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.image_reader import open_frames
from vivit_jax.video.synthetic import write_video
from vivit_jax.video.video_reader import VideoReader

SDP = (
    'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 0.0.0.0\nt=0 0\n'
    'm=video 50404 RTP/AVP 96\na=rtpmap:96 H264/90000\n'
)
HLS = '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\npart.ts\n#EXT-X-ENDLIST\n'
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>part.ts'
    '</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
IMF = '<?xml version="1.0"?>\n<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
SUBTITLES = '1\n00:00:01,000 --> 00:00:02,000\nhello\n'
LISTS = {
    'a.sdp': (SDP, 'is an SDP description, which names other sources'),
    'b.ffconcat': ('ffconcat version 1.0\nfile part.ts\n', 'is an ffconcat list, which names'),
    'c.m3u8': (HLS, 'is an HLS or M3U playlist, which names other sources'),
    'd.mpd': (DASH, 'is a DASH manifest, which names other sources'),
    'e.xml': (IMF, 'is an IMF package, which names other sources'),
    'f.pls': ('[playlist]\nFile1=http://127.0.0.1/a.mp4\n', 'is a playlist, which names'),
    'g.idx': ('# VobSub index file, v7\nsize: 4x4\n', 'is a VobSub index'),
    'h.srt': (SUBTITLES, 'not a video file, or damaged (MP4, Matroska, AVI and others that hold'),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a part that lists name, and which FFmpeg would open."""
    write_video(tmp_path / 'a.mp4', np.random.default_rng(0).integers(0, 256, (9, 16, 32, 3), 'u1'))
    remux(tmp_path / 'a.mp4', tmp_path / 'part.ts')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('extension', ['', '.mp4'])
@pytest.mark.parametrize('name', LISTS)
def test_list_of_other_sources_is_refused_by_name(folder, name, extension):
    text, words = LISTS[name]
    (folder / f'{name}{extension}').write_text(text)
    for source in (f'{name}{extension}', text.encode()):
        with pytest.raises(VideoError, match=re.escape(words)):
            VideoReader(source)


def test_ffmpeg_itself_would_follow_the_lists(folder):
    """So the lists themselves are right."""
    for name in ('b.ffconcat', 'c.m3u8'):
        (folder / name).write_text(LISTS[name][0])
        with av.open(name) as container:
            assert sum(1 for _ in container.decode(video=0)) == 9


@pytest.mark.parametrize('codec', ['png', 'mjpeg'])
def test_single_image_is_no_video(folder, codec):
    context = av.CodecContext.create(codec, 'w')
    context.height, context.width, context.time_base = 16, 32, 1
    context.pix_fmt = 'rgb24' if codec == 'png' else 'yuvj420p'
    frame = av.VideoFrame(32, 16, context.pix_fmt)
    image = b''.join(map(bytes, [*context.encode(frame), *context.encode(None)]))
    for name in ('one.bin', 'img_%03d.jpg', '1.png'):
        (folder / name).write_bytes(image)
        with pytest.raises(VideoError, match=r'is a single image, .* or a folder of numbered'):
            VideoReader(name)
    with pytest.raises(VideoError, match=r'no such file; of images .* give the folder'):
        VideoReader('frame_%05d.png')


def _refer_to(path, target):
    """Makes an MP4 say that its frames lie in another file, as reference movies do."""
    content = path.read_bytes()
    place = content.index(b'dref') - 4
    text = os.fsencode(target)
    alias = bytes(10 + 28 + 12 + 64 + 16) + struct.pack('>hh', -1, -1)
    alias += bytes(16) + struct.pack('>HH', 2, len(text)) + text + bytes(len(text) % 2)
    alias += struct.pack('>H', 0xFFFF) + bytes(150)
    entry = struct.pack('>I4sI', len(alias) + 12, b'alis', 0) + alias
    box = struct.pack('>I4sII', len(entry) + 16, b'dref', 0, 1) + entry
    old = int.from_bytes(content[place : place + 4], 'big')
    longer = bytearray(content[:place] + box + content[place + old :])
    for tag in (b'moov', b'trak', b'mdia', b'minf', b'dinf'):
        at = content.index(tag) - 4
        size = int.from_bytes(content[at : at + 4], 'big') + len(box) - old
        longer[at : at + 4] = size.to_bytes(4, 'big')
    path.write_bytes(longer)


def test_reference_movie_has_no_frames_of_another_file(folder):
    shutil.copy('a.mp4', 'other.mp4')
    _refer_to(folder / 'a.mp4', folder / 'other.mp4')
    with av.open('a.mp4', options={'enable_drefs': '1', 'use_absolute_path': '1'}) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9  # so the reference is right
    with pytest.raises(VideoError, match='has no frames'):
        VideoReader('a.mp4')


_OPEN_ALL = """
import pathlib, sys
from vivit_jax.video.video_reader import VideoReader
from vivit_jax.video.frame_reader import VideoError
for path in sorted(pathlib.Path().glob('hostile.*')):
    for source in (str(path), path.read_bytes()):
        try:
            with VideoReader(source) as video:
                video.read([0, len(video) - 1])
        except VideoError:
            pass
"""


def test_system_calls_show_no_socket_and_no_other_file(folder):
    if not shutil.which('strace'):
        pytest.skip('strace is not installed, which shows the system calls')
    for name, (text, _) in LISTS.items():
        (folder / f'hostile.{name}').write_text(text)
    shutil.copy('a.mp4', 'hostile.reference.mp4')
    _refer_to(folder / 'hostile.reference.mp4', folder / 'part.ts')
    command = ['strace', '-f', '-e', 'trace=%network,openat,open', '-o', 'calls', sys.executable]
    done = subprocess.run([*command, '-c', _OPEN_ALL], capture_output=True, text=True)
    if 'ptrace' in done.stderr:
        pytest.skip(f'strace may not look here: {done.stderr.splitlines()[0]}')
    assert done.returncode == 0, done.stderr
    calls = (folder / 'calls').read_text()
    assert not re.findall(r'\b(?:socket|bind|connect|recvfrom|sendto)\(.*', calls)
    opened = set(re.findall(r'open(?:at)?\([^"]*"((?!/)[^"]*)"', calls))
    assert {name for name in opened if not name.startswith('hostile.')} <= {'', '.'}
    assert 'hostile.reference.mp4' in opened
    assert 'part.ts' not in calls


def test_what_is_no_regular_file_is_refused_at_once(folder):
    os.mkfifo('fifo.mp4')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind('socket.mp4')
    for name in ('fifo.mp4', 'socket.mp4', '/dev/zero'):
        with pytest.raises(VideoError, match='is a pipe, a socket or a device, not a regular file'):
            VideoReader(name)
    os.mkdir('frames')
    os.mkfifo('frames/00001.jpg')
    with (
        open_frames('frames') as video,
        pytest.raises(VideoError, match=r'frames/00001\.jpg: is a pipe'),
    ):
        video.read([0])
