"""The checkpoint that comes with the package. It was trained on generated scenes only; see weights/README.md."""

from pathlib import Path

EMBEDDED = Path(__file__).parent / "weights" / "dlinknet34-w025.th"
GSD_M = 0.5  # metres a pixel at which it was trained, the middle of its scenes' range
