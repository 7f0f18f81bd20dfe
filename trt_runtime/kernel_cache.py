"""Keeps the kernels that TensorRT-RTX has compiled on this GPU, beside the plan as `roads.plan.cache`.

TensorRT-RTX compiles kernels when a model first runs, which takes seconds. The file is one line of JSON, then the
library's own bytes. The line holds the plan's hash, what made the plan, the GPU, and the hash of those bytes. The file
is used only if its line equals the line that this machine would write. The library compares the driver itself
(IRuntimeCache.deserialize). Compiled kernels are code that no signature covers, so a model opened with keys neither
reads nor writes the file.
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
    """The cache file of one plan on one GPU. Failing to read or write it is not an error."""

    def __init__(self, plan: Path, manifest: Manifest, gpu: Gpu) -> None:
        self.path = plan.with_name(plan.name + ".cache")
        self.mark = {"plan": manifest.plan.sha256, "made_by": manifest.title, "gpu": str(gpu)}
        self.kept = b""  # the file's content

    def line(self, data: bytes) -> bytes:
        return json.dumps({**self.mark, "sha256": hashlib.sha256(data).hexdigest()}).encode()

    def read(self) -> bytes:
        """The kernels kept for this plan on this machine; empty where there are none."""
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
        """Write the file if its content is new."""
        if not data or data == self.kept:
            return
        try:
            with replacing(self.path) as part:
                part.write_bytes(self.line(data) + b"\n" + data)
        except OSError as e:
            log.info("%s: kernels are not kept for the next time: %s", self.path, e)
