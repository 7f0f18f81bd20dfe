"""Run by test_versions.py in a process of its own: build with a fake TensorRT of one version, and say what it was told.

Polygraphy takes one TensorRT for a process, so each version needs its own.
"""

import json
import sys
from pathlib import Path

from tests.support.fake_tensorrt import make

version, onnx, out, given = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
trt = sys.modules["tensorrt"] = make(version)
trt.downgrade = given.pop("downgrade", False)
cache = given.pop("timing_cache", None)
gpu = given.pop("gpu", ["Orin", "8.7"])
again = given.pop("rebuild", False)

from dlink.cli.build import notes  # noqa: E402
from dlink.engine import build, versions  # noqa: E402
from dlink.onnx_graph.model import read_model  # noqa: E402
from dlink.runtime.errors import DlinkError  # noqa: E402
from dlink.trt_runtime.manifest import Options  # noqa: E402
from dlink.trt_runtime.nvidia_driver import Gpu, Gpus  # noqa: E402

build.look_for_gpus = versions.look_for_gpus = lambda: Gpus("12.6", (Gpu(*gpu, 8 << 30),))
ticks = []
where = Path(cache) if cache else None
try:
    result = build.build(read_model(onnx), out, Options(**given), where, lambda *tick: ticks.append(tick[:2]))
    if again:
        trt.asked["flags"].clear()
        result = build.rebuild(out, lambda *tick: None)
except DlinkError as e:
    print(json.dumps({"error": type(e).__name__, "words": str(e)}))
else:
    asked = dict(trt.asked)
    parsed = asked.pop("onnx")
    out.with_suffix(".parsed").write_bytes(parsed)
    asked.pop("loaded")
    precisions = {k: v.name for k, v in asked.pop("precisions").items() if v is not None}
    strings = {k: str(v) for k, v in asked.pop("set").items()}
    manifest = json.loads(result.manifest.to_bytes())
    said = {"ticks": ticks[-1], "notes": notes(result)}
    print(json.dumps({**asked, "set": strings, "precisions": precisions, "manifest": manifest, **said}))
