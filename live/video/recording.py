"""Records a video as it comes, packet by packet, without coding it again. What was written before a crash can be read.

A file begins with a key frame and the decoder begins there too, so the file's frames are exactly those that were
delivered: `frames_of` gives them again. A new connection, or time stamps that jump back, begin a new file.
"""

from collections.abc import Iterator
from pathlib import Path

import av
from av.stream import Stream

from dlink.live.frame import Image
from dlink.live.video.counters import Seen
from dlink.live.video.decoder import AnyPacket, Decoder
from dlink.live.video.pixels import pixels_of
from dlink.runtime import BadInput

TRANSPORT = ("h264", "hevc", "mpeg2video", "mpeg1video", "mpeg4")  # codecs that MPEG-TS has; others go to Matroska
FLUSHED = {"flush_packets": "1"}
KLV = "klv"


class Recording:
    """One file of a recording.

    Args:
        folder: Where it is written.
        number: Of the file.
        streams: The video's streams: the video, and data such as KLV.
    """

    def __init__(self, folder: Path, number: int, streams: list[Stream]) -> None:
        transport = streams[0].codec_context.name in TRANSPORT
        self.path = folder / f"video-{number:04}.{'ts' if transport else 'mkv'}"
        options = FLUSHED | ({"mpegts_flags": "+resend_headers"} if transport else {"cluster_time_limit": "1000"})
        self.file = av.open(str(self.path), "w", format="mpegts" if transport else "matroska", options=options)
        self.streams: dict[int, Stream] = {}
        self.last: dict[int, int] = {}  # decoding times, by stream
        for stream in streams:
            if stream.type == "video" or (transport and is_klv(stream)):
                self.streams[stream.index] = self.file.add_stream_from_template(stream)

    def write(self, packet: AnyPacket) -> None:
        """Write a packet, and leave out one whose time jumps back. An error of FFmpeg where the disk fails."""
        source = packet.stream
        stream, last = self.streams.get(source.index), self.last.get(source.index, -1 << 62)
        if stream is None:
            return
        if packet.dts is None:  # telemetry without time stamps, or a damaged picture: it belongs to the last frame
            packet.dts = packet.pts = max(last + 1, max(self.last.values(), default=0))
        if source.type == "data" and (packet.dts or 0) <= last:
            return  # telemetry may notice sooner than the video that time stamps jump back
        self.last[source.index] = packet.dts or 0
        packet.stream = stream
        try:
            self.file.mux_one(packet)
        finally:
            packet.stream = source

    def close(self) -> None:
        self.file.close()


def is_klv(stream: Stream) -> bool:
    """Whether a stream has KLV telemetry."""
    return stream.type == "data" and stream.name == KLV


def frames_of(path: Path) -> Iterator[Image]:
    """The frames of a recording in their order, uint8 (H, W, 3) RGB; a last one that was cut off is left out.

    Raises:
        BadInput: The file is no video.
    """
    try:
        with av.open(str(path)) as file:
            if not file.streams.video:
                raise BadInput(f"{path}: has no video")
            decoder = Decoder(file.streams.video[0], Seen())  # as a Source decodes, so that frames are counted alike
            for packet in file.demux(file.streams.video[0]):
                for frame, _ in decoder.decode(packet):
                    yield pixels_of(frame)
    except av.error.InvalidDataError:
        return
    except (av.error.FFmpegError, OSError) as e:
        raise BadInput(f"{path}: {e}") from e
