"""One connection to a video: packets as they arrive, decoded from the first key frame on, and recorded."""

import errno
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
from av.container import InputContainer

from dlink.live.video.address import Address
from dlink.live.video.clock import Clock
from dlink.live.video.counters import Seen
from dlink.live.video.decoder import AnyPacket, Decoder
from dlink.live.video.pixels import pixels_of
from dlink.live.video.recording import Recording, is_klv
from dlink.live.video.taken import Taken
from dlink.runtime import BadInput

OPENS = 5.0  # seconds to open
REORDERED = 1.0  # seconds between the times at which a frame is decoded and shown; more is a damaged time stamp
AHEAD = 0.5  # seconds that a file is read ahead of its frames, for the telemetry on both sides of them
JUMP = 0.1  # seconds back that make time stamps another run of the video
SILENT = 2.0  # seconds without a packet after which a link is taken for lost
PROBED = {"analyzeduration": "500000", "probesize": "1000000"}  # microseconds and bytes, to know a live stream's codecs
OPTIONS = {"udp": PROBED, "net": PROBED, "rtsp": PROBED | {"rtsp_transport": "tcp"}, "file": {}, "pipe": PROBED}

OnData = Callable[[bytes, float | None, float, int], object]  # a packet, its stamp, when it was sent, its connection


class LinkLost(Exception):
    """A link broke; the message says how."""


def open_container(address: Address) -> InputContainer:
    """Open a video. LinkLost where nobody sends, BadInput where it is no video."""
    if address.kind == "device":
        return open_device(address)
    try:
        return av.open(
            address.url, options=dict(OPTIONS[address.kind]), timeout=(OPENS, SILENT) if address.live else None
        )
    except (av.error.FFmpegError, OSError) as e:
        if getattr(e, "errno", None) == errno.EADDRINUSE:
            raise BadInput(f"{address.shown}: another program has this port; end it, or choose another one") from e
        if address.live:
            raise LinkLost(reason(e)) from e
        raise BadInput(
            f"{address.shown}: cannot be read as video: {reason(e)}; it must be a file or a stream that FFmpeg reads"
        ) from e


def open_device(address: Address) -> InputContainer:
    if "v4l2" not in av.formats_available and "video4linux2" not in av.formats_available:
        raise BadInput(
            f"{address.shown}: this build of FFmpeg opens no cameras; pipe it: ffmpeg -f v4l2 -i {address.shown} "
            f"-pix_fmt rgb24 -f rawvideo - | dlink-live MODEL - --raw 1280x720@30"
        )
    try:
        return av.open(address.url, format="v4l2", timeout=(OPENS, SILENT))
    except (av.error.FFmpegError, OSError) as e:
        raise LinkLost(reason(e)) from e


def reason(error: Exception) -> str:
    """An error of FFmpeg in a few words."""
    if isinstance(error, av.error.ExitError):
        return f"nothing came for {SILENT:g} s"
    return str(getattr(error, "strerror", "") or error)[:120]


class Connection:
    """A video from its opening to its end.

    Args:
        address: Where it comes from.
        seen: Counts, which go on over connections; `connections` is this one's number.
        on_data: Called with each packet of KLV telemetry, in the thread that reads frames.
        folder: Where it is recorded. None: it is not.
        files: How many files the recording has so far.
        damaged: Whether frames are given that are not sound.
    """

    def __init__(
        self,
        address: Address,
        seen: Seen,
        on_data: OnData | None = None,
        folder: Path | None = None,
        files: int = 0,
        damaged: bool = False,
    ) -> None:
        self.address, self.seen, self.on_data, self.folder, self.files = address, seen, on_data, folder, files
        self.damaged = damaged
        self.recording: Recording | None = None
        self.failure = ""  # why the recording ended early
        self.clock = Clock()
        self.container = open_container(address)
        if not self.container.streams.video:
            self.container.close()
            raise BadInput(f"{address.shown}: has no video")
        self.stream = self.container.streams.video[0]
        self.decoder = Decoder(self.stream, seen)
        self.streams = [self.stream, *(s for s in self.container.streams if is_klv(s))]
        self.reads_ahead = address.kind == "file" and on_data is not None and len(self.streams) > 1
        self.begun = False  # whether there was a key frame
        self.index = 0
        self.stamp: float | None = None  # the last packet's decoding time, seconds

    def frames(self) -> Iterator[Taken]:
        """The frames until the connection ends. LinkLost where a link broke."""
        waiting: deque[Taken] = deque()
        for taken in self.as_decoded():
            waiting.append(taken)
            while waiting and not self.is_early(waiting[0]):
                yield waiting.popleft()
        yield from waiting

    def is_early(self, taken: Taken) -> bool:
        """Whether the telemetry behind a frame of a file is still to be read."""
        if not self.reads_ahead or taken.connection != self.seen.connections:
            return False
        return taken.pts is not None and self.stamp is not None and self.stamp < taken.pts + AHEAD

    def as_decoded(self) -> Iterator[Taken]:
        """The frames as they come out of the decoder."""
        try:
            for packet in self.container.demux(self.streams):
                yield from self.taken(packet)
        except (av.error.FFmpegError, OSError, IndexError) as e:  # PyAV knows no streams that begin on the way
            if self.address.live:
                raise LinkLost(reason(e)) from e
            self.seen.lost = reason(e)  # a file that is cut off: what came before is good
        if self.address.live:
            raise LinkLost("the other end closed it")

    def taken(self, packet: AnyPacket) -> Iterator[Taken]:
        now = time.monotonic()
        if packet.stream is not self.stream:
            if packet.size:
                if self.on_data:
                    stamp = stamp_of(packet)
                    self.on_data(bytes(packet), stamp, self.clock.captured(stamp, now), self.seen.connections)
                self.record(packet)
            return
        if packet.size and not self.prepared(packet, now):
            return
        frames = list(self.decoder.decode(packet))
        if packet.size:
            self.record(packet)
        for frame, sound in frames:
            index, self.index = self.index, self.index + 1
            if self.address.live and not self.clock.settled(now):
                self.seen.buffered += 1
            elif sound or self.damaged:
                yield self.taken_of(frame, index, now)

    def prepared(self, packet: AnyPacket, now: float) -> bool:
        """Whether a packet can be decoded. Files and decoders begin anew where time stamps jump back."""
        decoded = decoding_time(packet)
        if self.stamp is not None and decoded is not None and decoded < self.stamp - JUMP:
            self.begun, self.index = False, 0
            self.seen.connections += 1
            self.decoder.flush()
            self.clock = Clock()
            self.end_recording()
        self.stamp = decoded if decoded is not None else self.stamp
        stamp = stamp_of(packet)
        if stamp is not None:
            self.clock.arrived(stamp, now)
        if not self.begun and not packet.is_keyframe:
            self.seen.before_key += 1
            return False
        if not self.begun:
            self.begun = True
            self.begin_recording()
        return True

    def taken_of(self, frame: av.VideoFrame, index: int, now: float) -> Taken:
        pts = stamp_of(frame)
        self.seen.frames += 1
        return Taken(
            pixels=partial(pixels_of, frame),
            captured=self.clock.captured(pts, now) if self.address.live else now,
            pts=pts,
            index=index,
            connection=self.seen.connections,
            video=self.recording.path.name if self.recording else None,
        )

    def begin_recording(self) -> None:
        if self.folder is None or self.failure:
            return
        try:
            self.files += 1
            self.recording = Recording(self.folder, self.files, self.streams)
        except (av.error.FFmpegError, OSError, ValueError) as e:
            self.failure = f"the video is not recorded: {reason(e)}"

    def record(self, packet: AnyPacket) -> None:
        """Record a packet. A recording that fails ends, and the video goes on."""
        if self.recording is None:
            return
        try:
            self.recording.write(packet)
        except (av.error.FFmpegError, OSError, ValueError) as e:
            self.failure = f"the recording ended: {reason(e)}"
            self.end_recording()

    def end_recording(self) -> None:
        recording, self.recording = self.recording, None
        if recording:
            try:
                recording.close()
            except (av.error.FFmpegError, OSError) as e:
                self.failure = f"the recording ended: {reason(e)}"

    def close(self) -> None:
        self.end_recording()
        self.container.close()


def decoding_time(packet: AnyPacket) -> float | None:
    """When a packet is to be decoded, seconds."""
    return None if packet.dts is None or packet.time_base is None else float(packet.dts * packet.time_base)


def stamp_of(part: "AnyPacket | av.VideoFrame") -> float | None:
    """The time stamp of a packet or a frame, seconds. None where it has none that can be."""
    if part.pts is None or part.time_base is None:
        return None
    if part.dts is not None and abs(part.pts - part.dts) * part.time_base > REORDERED:
        return None
    return float(part.pts * part.time_base)
