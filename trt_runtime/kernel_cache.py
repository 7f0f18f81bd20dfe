"""The kernels that TensorRT-RTX has compiled on this GPU, kept beside the plan as `roads.plan.cache`.

TensorRT-RTX compiles kernels when a model first runs, seconds of work. The file is one line of JSON and then the
library's own bytes. The line names the plan by hash, what made it, the GPU, and the hash of those bytes: where it is
not the very line that would be written here, nothing of the file is used. Drivers the library compares itself
(IRuntimeCache.deserialize). Compiled kernels are code that nobody signs, so a model that is opened with keys has no
such file.
"""

import hashlib
import json
import logging
from pathlib import Path

from dlink.runtime.files import replacing
from dlink.trt_runtime.manifest import Manifest
from dlink.trt_runtime.nvidia_driver import Gpu

log = logging.getLogger(__name__)


class KernelCache:
    """The file of one plan on one GPU. That it can't be read or written is no error."""

    def __init__(self, plan: Path, manifest: Manifest, gpu: Gpu) -> None:
        self.path = plan.with_name(plan.name + ".cache")
        self.mark = {"plan": manifest.plan.sha256, "made_by": manifest.title, "gpu": str(gpu)}
        self.kept = b""  # what is in the file

    def line(self, data: bytes) -> bytes:
        return json.dumps({**self.mark, "sha256": hashlib.sha256(data).hexdigest()}).encode()

    def read(self) -> bytes:
        """What was kept for this plan, here; empty where nothing was."""
        try:
            line, _, data = self.path.read_bytes().partition(b"\n")
        except OSError:
            return b""
        if line != self.line(data):
            log.info("%s: damaged, or of another plan, GPU or TensorRT-RTX: not used", self.path)
            return b""
        self.kept = data
        return data

    def write(self, data: bytes) -> None:
        """Keep it, if it is new."""
        if not data or data == self.kept:
            return
        try:
            with replacing(self.path) as part:
                part.write_bytes(self.line(data) + b"\n" + data)
        except OSError as e:
            log.info("%s: kernels are not kept for the next time: %s", self.path, e)
