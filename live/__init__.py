"""Roads of a live video: newest frames first, in time, with counters that add up.

Example:
    >>> from dlink.live import Live
    >>> with Live("roads.onnx", deadline=None, keep="all") as live:
    ...     number = live.offer(image)  # uint8 (H, W, 3) RGB
    ...     live.end()
    ...     masks = [roads.mask for roads in live]
"""

from dlink.live.counts import Counts
from dlink.live.engine import About, Computed, Engine, Lost
from dlink.live.frame import Frame, Outcome, Roads
from dlink.live.live import Live
from dlink.live.pose import Pose

__all__ = ["About", "Computed", "Counts", "Engine", "Frame", "Live", "Lost", "Outcome", "Pose", "Roads"]
