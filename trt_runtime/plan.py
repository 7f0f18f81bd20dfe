"""A plan from a file to TensorRT: what is verified before, in which order, and what to do where it does not hold.

A plan is code: deserialising one is like running a program. So it is read once, and the very bytes whose hash, manifest
and signature were verified are those that TensorRT gets.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlink.runtime.errors import BadPlan, Mismatch, NoEngine, Untrusted
from dlink.runtime.versions import TENSORRT_DISTRIBUTIONS, installed_version, version_numbers
from dlink.trt_runtime.manifest import TARGETS, Manifest, RunsOn, capability_of, manifest_of, parse, read_bytes
from dlink.trt_runtime.nvidia_driver import Gpu, Gpus, look_for_gpus

TAGS = {b"ftrt": "tensorrt", b"ptrt": "tensorrt", b"vtrt": "tensorrt-rtx"}  # a plan's first four bytes
AMPERE = "8.0"  # the oldest GPUs that a plan of TensorRT-RTX is for where it names none
VERSION_AT = 24  # where the four numbers of TensorRT's version stand (trtexec --getPlanVersionOnly reads them there)
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@dataclass(frozen=True)
class Here:
    """What this machine has to run plans."""

    gpus: Gpus
    versions: dict[str, str]  # of TensorRT by target; one that is not here is not in it


def mend(path: Path, manifest: Manifest) -> str:
    """The line that mends a plan."""
    return f"build it here: {manifest.command(path)}"


def mend_for(path: Path, manifest: Manifest, gpu: Gpu) -> str:
    """The line that mends a plan which is for other GPUs."""
    if manifest.built.target != "tensorrt-rtx" or capability_of(gpu.capability) < capability_of(AMPERE):
        return mend(path, manifest)
    options = replace(manifest.options, compute_capability=(), unlisted_gpu=True)
    line = replace(manifest, options=options).command(path)
    return f"TensorRT-RTX may run on it without listing it: {line}"


def look_here() -> Here:
    """Asks the driver and the installed distributions; imports nothing."""
    return Here(look_for_gpus(), {target: v for target in TARGETS if (v := installed_tensorrt(target))})


def installed_tensorrt(target: str) -> str:
    """The version of TensorRT that is installed for a target; empty where none is."""
    return installed_version(*TENSORRT_DISTRIBUTIONS[target])


def made_by(data: bytes) -> tuple[str, str]:
    """Target and version that a plan's first bytes name, both empty where they name none.

    The layout is what TensorRT-RTX 1.7 writes and what trtexec reads of TensorRT's; it is a hint, not a proof.
    """
    target = TAGS.get(data[:4], "")
    known = target and len(data) >= VERSION_AT + 4 and data[4] == 0
    return target, ".".join(map(str, data[VERSION_AT : VERSION_AT + 4])) if known else ""


def read_plan(path: Path, keys: Sequence[Path] = (), require_verdict: bool = False) -> tuple[bytes, Manifest]:
    """A plan's bytes and its manifest, once they belong together and are trusted as far as is asked.

    keys: public keys (PEM files), one of which must have signed it; none asks for no signature.
    """
    said = read_bytes(path)
    if keys:
        from dlink.trt_runtime.signing import verify

        verify(path, said, keys)
    manifest = parse(said, path)
    data = read_exactly(path, manifest)
    target, version = made_by(data)
    if target and target != manifest.built.target:
        raise BadPlan(
            f"{path}: a plan of {TARGETS[target]} {version}, its manifest says {manifest.title}; {mend(path, manifest)}"
        )
    if require_verdict:
        need_verdict(path, manifest)
    return data, manifest


def read_exactly(path: Path, manifest: Manifest) -> bytes:
    """The plan's bytes, if they are those that the manifest was written for."""
    size = path.stat().st_size
    if size != manifest.plan.bytes:
        kind = "truncated" if size < manifest.plan.bytes else "another"
        raise BadPlan(
            f"{path}: {kind}: {size:,} bytes, {manifest_of(path).name} says {manifest.plan.bytes:,}; "
            f"{mend(path, manifest)}"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest.plan.sha256:
        raise BadPlan(
            f"{path}: damaged, or not the plan that {manifest_of(path).name} was written for; {mend(path, manifest)}"
        )
    return data


def need_verdict(path: Path, manifest: Manifest) -> None:
    check = f"check it: dlink-check {path} TILES --against CHECKPOINT"
    if manifest.verdict is None:
        raise Untrusted(f"{path}: nobody has checked that it draws the same roads; {check}")
    if manifest.verdict.plan_sha256 != manifest.plan.sha256:
        raise Untrusted(f"{path}: was checked as another plan than it is now; {check}")
    if not manifest.verdict.same_roads:
        raise Untrusted(f"{path}: does not draw the same roads: {manifest.verdict.words}; {check}, or build another")


def fit(path: Path, manifest: Manifest, here: Here | None = None) -> Gpu:
    """The GPU that will run a plan; Mismatch or NoEngine where this machine can't, in one line."""
    here = here or look_here()
    title, target = manifest.title, manifest.built.target
    if not here.gpus.found:
        raise NoEngine(
            f"{path}: a plan needs an NVIDIA GPU, and there is none here: {here.gpus.fault}; "
            f"{manifest.onnx.name}, which it was built from, runs on a CPU"
        )
    gpu = here.gpus.found[0]
    if target not in here.versions:
        others = ", ".join(f"{TARGETS[t]} {v}" for t, v in here.versions.items()) or "neither TensorRT nor TensorRT-RTX"
        raise NoEngine(f"{path}: a plan of {title}, here is {others}; install {title}")
    version = here.versions[target]
    if not same_version(manifest, version):
        raise Mismatch(f"{path}: a plan of {title}, here is {TARGETS[target]} {version}; {mend(path, manifest)}")
    if not runs_on(manifest.runs_on, gpu):
        raise Mismatch(
            f"{path}: for GPUs of compute capability {manifest.runs_on.words()}"
            + (f" (built on {manifest.built.gpu})" if manifest.built.gpu else "")
            + f", here is {gpu}; {mend_for(path, manifest, gpu)}"
        )
    if major(here.gpus.driver) < major(manifest.built.cuda):
        raise Mismatch(
            f"{path}: built with a driver for CUDA {manifest.built.cuda}, the driver here is for "
            f"{here.gpus.driver}; update the driver, or {mend(path, manifest)}"
        )
    return gpu


def same_version(manifest: Manifest, version: str) -> bool:
    """Plans load in the very version that built them, or if so built in newer ones of the same major version."""
    ours, theirs = version_numbers(manifest.built.version), version_numbers(version)
    known = min(len(ours), len(theirs))  # 8.6.1.post1 is the wheel of 8.6.1
    if known and ours[:known] == theirs[:known]:
        return True
    return manifest.runs_on.newer_versions and ours[:1] == theirs[:1] and theirs > ours


def runs_on(where: RunsOn, gpu: Gpu) -> bool:
    """Whether a GPU is among those, or newer than the newest of them, or than the oldest, where that will do."""
    if gpu.capability in where.capabilities:
        return True
    known = sorted(map(capability_of, where.capabilities)) or [(99, 0)]
    here = capability_of(gpu.capability)
    return (where.newer_gpus and here > known[-1]) or (where.unlisted_gpus and here > known[0])


def major(version: str) -> int:
    return (version_numbers(version) or (0,))[0]
