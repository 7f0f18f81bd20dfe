"""INT8 files made on the way to something else, kept by content so that each is calibrated once."""

from collections.abc import Callable
from pathlib import Path

from dlink.calib.evaluator import HoldoutLimits
from dlink.calib.sample import Sample
from dlink.runtime.files import cache_folder, file_sha256
from dlink.runtime.progress import Tick

VERSION = 2  # of what calibration writes; raise it when the same tiles give another file


def cached_int8(
    source: Path, key: str, sample: Callable[[], Sample], limits: HoldoutLimits, progress: Callable[[str], Tick]
) -> Path:
    """The INT8 file of an ONNX file, calibrated and judged on a sample unless it has been before.

    `key` stands for the sample: its hash, or what it is made from.
    """
    path = cache_folder() / f"int8-{file_sha256(source)[:16]}-{key}-v{VERSION}.onnx"
    if not path.exists():
        from dlink.calib.calibrate import CalibrationOptions, calibrate

        calibrate(source, path, sample(), CalibrationOptions(limits=limits), None, progress)
    return path
