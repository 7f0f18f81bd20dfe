"""What a video's source has seen so far."""

from dataclasses import dataclass


@dataclass
class Seen:
    """Counts since a Source was opened."""

    connections: int = 0
    frames: int = 0  # delivered
    corrupt: int = 0  # frames with damage, and those that are built on them
    damage: str = ""  # how the last damage was noticed
    before_key: int = 0  # packets before the first key frame of a connection, not decoded
    buffered: int = 0  # frames that came in a burst when a connection was opened, too old to be dated
    refused: int = 0  # packets that could not be decoded
    partial: int = 0  # bytes of a last raw frame that was cut off
    lost: str = ""  # why the last connection ended
