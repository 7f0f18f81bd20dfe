"""What stands beside a plan: `roads.plan.json` says what `roads.plan` is, what it was made from, and where it runs.

The plan itself is pure TensorRT bytes, which trtexec, DeepStream and Triton read. The manifest is bound to it by hash:
of a plan and a manifest that were not written together, neither is believed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dlink.runtime.errors import BadModel, BadPlan
from dlink.runtime.files import FileMark, replacing
from dlink.runtime.spec import Spec
from dlink.runtime.values import load_json, take

FORMAT = 1
MOST_BYTES = 1 << 20  # a manifest has a few thousand
TARGETS = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
PROVEN_BY = ("inspector", "graph")
END_TYPES = ("float32", "float16")


@dataclass(frozen=True, kw_only=True)
class Built:
    """By what the plan was built, and on what."""

    target: str  # a key of TARGETS
    version: str  # of TensorRT, "10.3.0"
    cuda: str  # the newest that the driver there ran, "12.6"; this and what follows empty where there was no GPU
    driver: str  # its release, "560.35.03"; empty on a Jetson
    gpu: str  # its name
    capability: str  # its compute capability
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunsOn:
    """Which GPUs and versions of TensorRT take the plan."""

    capabilities: tuple[str, ...]  # compute capabilities, "8.6"
    newer_gpus: bool = False  # than the highest of them as well
    newer_versions: bool = False  # of TensorRT, within the same major version
    unlisted_gpus: bool = False  # no older than the lowest of them, where TensorRT-RTX itself takes the plan

    def words(self) -> str:
        """Of the GPUs, "8.0, 8.6 and newer"."""
        said = ", ".join(self.capabilities) + (" and newer" if self.newer_gpus else "")
        return f"{said}, and those between where TensorRT-RTX takes it" if self.unlisted_gpus else said


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a plan is built: dlink-build's options, so that it can be built again."""

    target: str = "tensorrt"
    max_tiles: int = 1
    views: int = 8
    workspace: int | None = None  # MiB
    optimization_level: int | None = None
    compute_capability: tuple[str, ...] = ()  # or "current" alone: the GPU at hand
    unlisted_gpu: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    strip_weights: bool = False

    @property
    def batch(self) -> int:
        """The most views of tiles at once."""
        return self.max_tiles * self.views

    def words(self) -> list[str]:
        """What differs from the defaults, as the command line has it."""
        said = []
        for f in fields(self):
            value, flag = getattr(self, f.name), "--" + f.name.replace("_", "-")
            if value == f.default:
                continue
            if value is True:
                said += [flag]
            else:
                said += [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
        return said


@dataclass(frozen=True, kw_only=True)
class Precision:
    """In what the multiply-adds are computed."""

    shares: Mapping[str, float]  # by precision, the largest first; "unseen" where the report names no layer
    proven_by: str  # "inspector": the engine's own report; "graph": a strongly typed graph, and no GPU to ask


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The types of what the plan reads, the prepared image, and of the probabilities that it gives; of END_TYPES."""

    reads: str = "float32"
    gives: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What dlink-check found, of exactly the plan with that hash."""

    plan_sha256: str
    same_roads: bool
    words: str
    reference: FileMark
    tiles: int
    gpu: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is known of a plan."""

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
        """What made it, "TensorRT 10.3.0"."""
        return f"{TARGETS[self.built.target]} {self.built.version}"

    def to_bytes(self) -> bytes:
        return (json.dumps({**asdict(self), "spec": json.loads(self.spec.to_json())}, indent=1) + "\n").encode()

    def write(self, plan: Path) -> None:
        """Beside the plan. A signature of what was there before holds no more, and goes."""
        with replacing(manifest_of(plan)) as part:
            part.write_bytes(self.to_bytes())
        signature_of(plan).unlink(missing_ok=True)

    def command(self, plan: Path) -> str:
        """The line that builds such a plan again."""
        return " ".join(["dlink-build", str(plan.parent / self.onnx.name), "-o", str(plan), *self.options.words()])


def manifest_of(plan: Path) -> Path:
    return plan.with_name(plan.name + ".json")


def signature_of(plan: Path) -> Path:
    return plan.with_name(plan.name + ".json.sig")


def read_bytes(plan: Path) -> bytes:
    """A plan's manifest as it stands there."""
    path = manifest_of(plan)
    mend = f"build it: dlink-build {plan.with_suffix('.onnx')} -o {plan}"
    try:
        with path.open("rb") as f:
            data = f.read(MOST_BYTES + 1)
    except FileNotFoundError as e:
        raise BadPlan(f"{plan}: has no manifest {path.name} beside it, so nothing is known of it; {mend}") from e
    if len(data) > MOST_BYTES:
        raise BadPlan(f"{path}: longer than any manifest; {mend}")
    return data


def parse(data: bytes, plan: Path) -> Manifest:
    """Inverse of `to_bytes`. Whatever is not exactly a manifest is BadPlan."""
    path = manifest_of(plan)
    mend = f"build the plan again: dlink-build {plan.with_suffix('.onnx')} -o {plan}"
    try:
        values = load_json(data)
    except ValueError as e:
        raise BadPlan(f"{path}: is not JSON: {e}; {mend}") from e
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT or isinstance(found, bool):
        raise BadPlan(f"{path}: no manifest of format {FORMAT}, the one this dlink reads; {mend}")
    try:
        manifest = take(Manifest, values, {Spec: lambda spec: Spec.of_values(spec, path)})
        refuse_nonsense(manifest)
    except BadModel as e:
        raise BadPlan(f"{e}; {mend}") from e
    except (ValueError, TypeError, OverflowError) as e:
        raise BadPlan(f"{path}: is damaged: {e}; {mend}") from e
    return manifest


def refuse_nonsense(manifest: Manifest) -> None:
    """ValueError where a value is of the right type and can't be."""
    named = {manifest.plan.name, manifest.onnx.name}
    if any(not name or Path(name).name != name for name in named):
        raise ValueError("a file's name has a folder")
    marks = [manifest.plan, manifest.onnx, *([manifest.verdict.reference] if manifest.verdict else [])]
    hashes = [mark.sha256 for mark in marks]
    if any(len(h) != 64 or set(h) - set("0123456789abcdef") for h in hashes) or any(m.bytes < 1 for m in marks):
        raise ValueError("a hash or a size is none")
    if manifest.built.target not in TARGETS or manifest.options.target not in TARGETS:
        raise ValueError("an unknown target")
    if manifest.precision.proven_by not in PROVEN_BY:
        raise ValueError("precisions from nowhere")
    if not {manifest.ends.reads, manifest.ends.gives} <= set(END_TYPES):
        raise ValueError("ends of an unknown type")
    for capability in manifest.runs_on.capabilities:
        capability_of(capability)
    if manifest.options.max_tiles < 1 or manifest.options.views not in (1, 4, 8):
        raise ValueError("a batch that can't be")


def capability_of(text: str) -> tuple[int, int]:
    """Compute capability "8.6" as (8, 6)."""
    major, dot, minor = text.partition(".")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit() and len(text) < 8):
        raise ValueError(f"{text!r} is no compute capability, such as 8.6")
    return int(major), int(minor)
