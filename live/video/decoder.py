"""Decodes a video's packets, and knows which frames are sound.

A decoder hides damage: it fills what is missing from other places and other frames, and later frames are built on that.
Roads of such a picture are silently wrong. FFmpeg tells of damage in three ways: a packet's mark, of a container that
counts its packets; an error; and its log. A frame is sound if none of them told of damage since the last key frame.

FFmpeg looks for missing parts of a picture only if it decodes in one thread. What is lost is noticed. A turned bit may
not be: it can make another valid picture. Links drop what has turned bits, by the checksums of UDP and TCP.
"""

import logging
from collections.abc import Iterator
from typing import Any, TypeAlias

import av
import av.logging
from av.packet import Packet
from av.video.stream import VideoStream

from dlink.live.video.counters import Seen

HARMLESS = "SEI"  # remarks about a picture, which some cameras write badly
CONCEALING = "concealing"  # parts of a picture that are missing; FFmpeg does not call it an error

AnyPacket: TypeAlias = "Packet[Any]"


class Decoder:
    """The decoder of a video stream.

    Args:
        stream: Of a container that was opened for reading.
        seen: Where damage is counted.
    """

    def __init__(self, stream: VideoStream, seen: Seen) -> None:
        self.stream, self.seen = stream, seen
        self.sound = False
        self.keys: set[int | None] = set()  # time stamps of key frames after the last damage
        stream.codec_context.thread_count = 1

    def decode(self, packet: AnyPacket) -> Iterator[tuple[av.VideoFrame, bool]]:
        """The frames that come out with a packet, in the order in which they are shown; and whether each is sound."""
        frames, damage = self.heard(packet)
        if packet.size and packet.is_corrupt:
            damage = damage or "a part of it was lost on the way"
        if damage:
            self.damaged(damage)
        elif packet.size and packet.is_keyframe:
            self.keys.add(packet.pts)
        for frame in frames:
            if frame.is_corrupt:
                self.damaged("the decoder marked a frame")
            if frame.pts in self.keys:
                self.sound = True
                self.keys.clear()
            self.seen.corrupt += not self.sound
            yield frame, self.sound

    def heard(self, packet: AnyPacket) -> tuple[list[av.VideoFrame], str]:
        """The frames, and what the decoder says of damage."""
        listen()
        with av.logging.Capture() as said:
            try:
                frames, refused = self.stream.decode(packet), ""
            except av.error.FFmpegError as e:
                self.seen.refused += 1
                frames, refused = [], str(e.strerror or e)
        words = (words.strip() for level, _, words in said if level <= av.logging.ERROR or CONCEALING in words)
        return frames, next((text for text in words if not text.startswith(HARMLESS)), refused)

    def damaged(self, how: str) -> None:
        self.sound, self.seen.damage = False, how
        self.keys.clear()

    def flush(self) -> None:
        """Forget all frames, as where time stamps jump."""
        self.stream.codec_context.flush_buffers()
        self.sound = False
        self.keys.clear()


def listen() -> None:
    """Let FFmpeg tell PyAV what it logs, each time anew: the application may have set it otherwise meanwhile."""
    level = av.logging.get_level()
    if level is None:  # PyAV is silent; it stays so beyond what `heard` catches
        logging.getLogger("libav").setLevel(logging.CRITICAL)
    if level is None or level < av.logging.INFO:
        av.logging.set_level(av.logging.INFO)
    av.logging.set_skip_repeated(False)
