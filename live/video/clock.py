"""When a frame was captured, from its time stamp and its arrival.

A frame that was held up on the way looks newer than it is, if it is dated by its arrival. Time stamps say how far apart
frames are, and the frame that was held up least says when they began: captured = time stamp + least (arrival - stamp).
"""

from collections import deque

WINDOW = 30.0  # seconds that the least delay is remembered, since clocks drift apart
LONGEST = 10.0  # seconds that a link may hold a message up
JUMPED = 0.5  # seconds less delay than the least: a damaged time stamp, or a clock that was set
AGREE = 5  # stamps in a row that tell of a clock that was set
SETTLED = 0.1  # seconds without a new least delay, after which what a connection had buffered has been read
FINE = 0.005  # seconds; a smaller gain is jitter


class Clock:
    """Dates frames whose time stamps go on. Seconds; arrivals are of `time.monotonic()`."""

    def __init__(self) -> None:
        self.delays: deque[tuple[float, float]] = deque()  # arrival, its delay; only those that may become the least
        self.first: float | None = None
        self.gained = 0.0  # arrival of the last packet with a clearly smaller delay
        self.odd: list[tuple[float, float]] = []  # arrivals and delays of the last stamps, as long as they are odd

    def arrived(self, stamp: float, now: float) -> None:
        """A packet with this time stamp has arrived. A stamp that is far ahead counts once the next ones agree."""
        delay = now - stamp
        if self.delays and delay < self.delays[0][1] - JUMPED:
            self.odd = [each for each in self.odd if abs(each[1] - delay) <= JUMPED] + [(now, delay)]
            if len(self.odd) < AGREE:
                return
            self.delays.clear()
        self.odd.clear()
        if not self.delays or delay < self.delays[0][1] - FINE:
            self.gained = now
        self.first = now if self.first is None else self.first
        while self.delays and self.delays[-1][1] >= delay:
            self.delays.pop()
        self.delays.append((now, delay))
        while now - self.delays[0][0] > WINDOW:
            self.delays.popleft()

    def restarted(self, stamp: float, now: float) -> bool:
        """Whether a time stamp is so far behind the last ones that its clock must have begun anew."""
        return bool(self.delays) and now - stamp - self.delays[0][1] > LONGEST

    def settled(self, now: float) -> bool:
        """Whether frames can be dated: what was buffered while the connection was opened came in a burst."""
        return self.first is not None and now - self.gained >= SETTLED

    def captured(self, stamp: float | None, now: float) -> float:
        """When a frame was captured. Without a time stamp: now."""
        if stamp is None or not self.delays:
            return now
        return min(now, stamp + self.delays[0][1])
