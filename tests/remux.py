"""Copies of video files in other containers."""

import av


def remux(path, other):
    """Copies the packets of a video; an MP4 gets its index at the front. Returns `other`."""
    options = {'movflags': 'faststart'} if other.suffix == '.mp4' else {}
    with av.open(str(path)) as source, av.open(str(other), 'w', options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return other
