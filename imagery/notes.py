"""Says what a reader assumed of a picture: through the logger `dlink.imagery`, the same words once in a process.

The command line shows each as a note. A program sees them on stderr, or wherever it sends that logger's warnings.
"""

import logging
from pathlib import Path

LOG = logging.getLogger("dlink.imagery")
SAID: set[str] = set()


def say(path: Path, words: str, detail: str = "") -> None:
    """Log `words` about a picture, and a detail of its own, unless another picture had the same words."""
    if words not in SAID:
        SAID.add(words)
        LOG.warning("%s: %s%s", path, words, detail)


def unknown_resolution(wanted: float) -> str:
    """What is said of a picture that should be read at `wanted` metres a pixel, and does not say its own."""
    return f"does not say its ground resolution and is read as it is, not at {wanted:g} m a pixel"
