"""The manifest `roads.plan.json` beside `roads.plan`: what the plan is, what it was built from, and where it runs.

The plan itself is pure TensorRT bytes, which trtexec, DeepStream and Triton read. The manifest holds the plan's hash. A
plan and a manifest that were not written together are refused.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dlink.runtime.errors import BadModel, BadPlan
from dlink.runtime.files import FileMark, replacing
from dlink.runtime.spec import Spec
from dlink.runtime.values import dataclass_of, load_json

FORMAT = 1
MOST_BYTES = 1 << 20  # of a manifest; real ones have a few thousand
TARGETS = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
PROVEN_BY = ("inspector", "graph")
END_TYPES = ("float32", "float16")


@dataclass(frozen=True, kw_only=True)
class Built:
    """What built the plan, and on which machine. Without a GPU, `cuda`, `driver`, `gpu` and `capability` are empty."""

    target: str  # a key of TARGETS
    version: str  # TensorRT's, "10.3.0"
    cuda: str  # the newest CUDA that the driver runs, "12.6"
    driver: str  # the driver's release, "560.35.03"; empty on a Jetson
    gpu: str  # the GPU's name
    capability: str  # the GPU's compute capability, "8.7"
    seconds: float  # of the build


@dataclass(frozen=True, kw_only=True)
class RunsOn:
    """The GPUs and versions of TensorRT that run the plan."""

    capabilities: tuple[str, ...]  # compute capabilities, "8.6"
    newer_gpus: bool = False  # also GPUs newer than the highest of them
    newer_versions: bool = False  # also newer versions of TensorRT, with the same major version
    unlisted_gpus: bool = False  # also GPUs newer than the lowest of them, if TensorRT-RTX itself accepts the plan

    def words(self) -> str:
        """The GPUs, "8.0, 8.6 and newer"."""
        gpus = ", ".join(self.capabilities) + (" and newer" if self.newer_gpus else "")
        return f"{gpus}, and those between where TensorRT-RTX takes it" if self.unlisted_gpus else gpus


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of dlink-build, kept so that the plan can be built again."""

    target: str = "tensorrt"
    max_tiles: int = 1
    views: int = 8
    workspace: int | None = None  # MiB
    optimization_level: int | None = None
    compute_capability: tuple[str, ...] = ()  # "current" alone: this machine's GPU
    unlisted_gpu: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    strip_weights: bool = False
    sparse: bool = False  # kernels for 2:4 sparse weights are allowed

    @property
    def batch(self) -> int:
        """The network's largest batch: tiles x views."""
        return self.max_tiles * self.views

    def words(self) -> list[str]:
        """The options that differ from the defaults, as on the command line."""
        words = []
        for f in fields(self):
            value, flag = getattr(self, f.name), "--" + f.name.replace("_", "-")
            if value == f.default:
                continue
            if value is True:
                words += [flag]
            else:
                words += [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
        return words


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The precisions in which the multiply-adds are computed."""

    shares: Mapping[str, float]  # by precision, the largest first; "unseen": layers that the report does not name
    proven_by: str  # "inspector": the engine's own report; "graph": the types of a strongly typed graph, without a GPU


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The types, of END_TYPES, of the plan's input (the prepared image) and output (the probabilities)."""

    reads: str = "float32"
    gives: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The verdict of dlink-check on the plan with this hash."""

    plan_sha256: str
    same_roads: bool
    words: str
    reference: FileMark
    tiles: int
    gpu: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is known about a plan."""

    spec: Spec
    plan: FileMark
    onnx: FileMark
    built: Built
    runs_on: RunsOn
    options: Options
    precision: Precision
    ends: Ends = Ends()
    verdict: Checked | None = None
    format: int = FORMAT

    @property
    def title(self) -> str:
        """The library that built it, "TensorRT 10.3.0"."""
        return f"{TARGETS[self.built.target]} {self.built.version}"

    def to_bytes(self) -> bytes:
        return (json.dumps({**asdict(self), "spec": json.loads(self.spec.to_json())}, indent=1) + "\n").encode()

    def write(self, plan: Path) -> None:
        """Write the manifest beside the plan. A signature of the old manifest is no longer valid, so it is removed."""
        with replacing(manifest_of(plan)) as part:
            part.write_bytes(self.to_bytes())
        signature_of(plan).unlink(missing_ok=True)

    def command(self, plan: Path) -> str:
        """The command that builds this plan again."""
        return " ".join(["dlink-build", str(plan.parent / self.onnx.name), "-o", str(plan), *self.options.words()])


def manifest_of(plan: Path) -> Path:
    return plan.with_name(plan.name + ".json")


def signature_of(plan: Path) -> Path:
    return plan.with_name(plan.name + ".json.sig")


def read_bytes(plan: Path) -> bytes:
    """The bytes of a plan's manifest."""
    path = manifest_of(plan)
    remedy = f"build it: dlink-build {plan.with_suffix('.onnx')} -o {plan}"
    try:
        with path.open("rb") as f:
            data = f.read(MOST_BYTES + 1)
    except FileNotFoundError as e:
        raise BadPlan(f"{plan}: has no manifest {path.name} beside it, so nothing is known of it; {remedy}") from e
    if len(data) > MOST_BYTES:
        raise BadPlan(f"{path}: longer than any manifest; {remedy}")
    return data


def parse(data: bytes, plan: Path) -> Manifest:
    """Inverse of `to_bytes`. Anything that is not exactly a manifest raises BadPlan."""
    path = manifest_of(plan)
    remedy = f"build the plan again: dlink-build {plan.with_suffix('.onnx')} -o {plan}"
    try:
        values = load_json(data)
    except ValueError as e:
        raise BadPlan(f"{path}: is not JSON: {e}; {remedy}") from e
    format = values.get("format") if isinstance(values, dict) else None
    if format != FORMAT or isinstance(format, bool):
        raise BadPlan(f"{path}: no manifest of format {FORMAT}, the one this dlink reads; {remedy}")
    try:
        manifest = dataclass_of(Manifest, values, {Spec: lambda spec: Spec.of_values(spec, path)})
        check_values(manifest)
    except BadModel as e:
        raise BadPlan(f"{e}; {remedy}") from e
    except (ValueError, TypeError, OverflowError) as e:
        raise BadPlan(f"{path}: is damaged: {e}; {remedy}") from e
    return manifest


def check_values(manifest: Manifest) -> None:
    """Raise ValueError for a value that has the right type but is out of range."""
    if any(not name or Path(name).name != name for name in (manifest.plan.name, manifest.onnx.name)):
        raise ValueError("a file's name must be a name without a folder")
    for mark in (manifest.plan, manifest.onnx, *([manifest.verdict.reference] if manifest.verdict else [])):
        if len(mark.sha256) != 64 or set(mark.sha256) - set("0123456789abcdef"):
            raise ValueError(f"sha256 must be 64 hex digits, got {mark.sha256[:80]!r}")
        if mark.bytes < 1:
            raise ValueError(f"bytes must be 1 or more, got {mark.bytes}")
    for target in (manifest.built.target, manifest.options.target):
        if target not in TARGETS:
            raise ValueError(f"target must be {' or '.join(TARGETS)}, got {target[:40]!r}")
    if manifest.precision.proven_by not in PROVEN_BY:
        raise ValueError(f"proven_by must be {' or '.join(PROVEN_BY)}, got {manifest.precision.proven_by[:40]!r}")
    for kind in (manifest.ends.reads, manifest.ends.gives):
        if kind not in END_TYPES:
            raise ValueError(f"types at the ends must be {' or '.join(END_TYPES)}, got {kind[:40]!r}")
    for capability in manifest.runs_on.capabilities:
        capability_of(capability)
    if manifest.options.max_tiles < 1:
        raise ValueError(f"max_tiles must be 1 or more, got {manifest.options.max_tiles}")
    if manifest.options.views not in (1, 4, 8):
        raise ValueError(f"views must be 1, 4 or 8, got {manifest.options.views}")


def capability_of(text: str) -> tuple[int, int]:
    """Compute capability "8.6" as (8, 6)."""
    major, dot, minor = text.partition(".")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit() and len(text) < 8):
        raise ValueError(f"{text!r} is not a compute capability, such as 8.6")
    return int(major), int(minor)
