"""Tells systemd how a service is: ready, alive, and how it goes (sd_notify(3)). Nothing without $NOTIFY_SOCKET."""

import os
import socket


def notify(state: str) -> bool:
    """Send lines such as READY=1. Whether there was somebody to tell."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as link:
        try:
            link.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            link.sendall(state.encode())
        except OSError:  # a service goes on without its manager
            return False
    return True


class Watchdog:
    """Says that a flight lives, as long as frames end or none waits."""

    def __init__(self) -> None:
        self.ended = -1  # frames, when it was last said

    def look(self, offered: int, waiting: int, words: str) -> None:
        """Look at the counters of a Live, and tell systemd."""
        ended = offered - waiting
        if ended == self.ended and waiting:
            return
        self.ended = ended
        notify(f"WATCHDOG=1\nSTATUS={words}")
