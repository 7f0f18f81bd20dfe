"""Plans and manifests that no TensorRT made."""

import hashlib
from dataclasses import replace

from dlink.runtime import Spec
from dlink.runtime.files import mark_of
from dlink.trt_runtime.manifest import Built, Checked, Manifest, Options, Precision, RunsOn, manifest_of
from dlink.trt_runtime.nvidia_driver import Gpu, Gpus
from dlink.trt_runtime.plan import Here

ORIN = Gpu("Orin", "8.7", 8 << 30)
HERE = Here(Gpus("12.6", (ORIN,)), {"tensorrt": "10.3.0"})
PLAN = b"ftrt" + bytes(20) + bytes([10, 3, 0, 0]) + bytes(100)


MANIFEST = Manifest(
    spec=Spec(tile=64, precision="fp16"),
    plan=mark_of("roads.plan", PLAN),
    onnx=mark_of("roads.onnx", b"onnx"),
    built=Built(
        target="tensorrt", version="10.3.0", cuda="12.6", driver="", gpu="Orin", capability="8.7", seconds=61.5
    ),
    runs_on=RunsOn(capabilities=("8.7",)),
    options=Options(max_tiles=2, workspace=512),
    precision=Precision(shares={"fp16": 0.99, "fp32": 0.01}, proven_by="inspector"),
)
COMMAND = "dlink-build {folder}/roads.onnx -o {folder}/roads.plan --max-tiles 2 --workspace 512"


def write(folder, data=PLAN, **changes):
    """A plan with a manifest that fits it, but for what is changed; the plan's path."""
    path = folder / "roads.plan"
    path.write_bytes(data)
    manifest = replace(MANIFEST, plan=mark_of("roads.plan", data))
    manifest_of(path).write_bytes(replace(manifest, **changes).to_bytes())
    return path


def checked(same_roads=True, plan=PLAN):
    return Checked(
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        same_roads=same_roads,
        words="same roads" if same_roads else "NOT the same roads",
        reference=mark_of("roads.th", b"checkpoint"),
        tiles=14,
        gpu="Orin",
    )
