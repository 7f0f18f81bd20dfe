"""Reads and verifies a plan before TensorRT sees it; each failure says what to do.

A plan is code: deserialising one is like running a program. So the file is read once, and TensorRT gets exactly the
bytes whose hash, manifest and signature were verified.
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
AMPERE = "8.0"  # the oldest GPU of a TensorRT-RTX plan that names no GPUs
VERSION_AT = 24  # offset of the four numbers of TensorRT's version (trtexec --getPlanVersionOnly reads them there)
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@dataclass(frozen=True)
class Here:
    """What this machine has to run plans."""

    gpus: Gpus
    versions: dict[str, str]  # installed versions of TensorRT, by target


def rebuild(path: Path, manifest: Manifest) -> str:
    """Advice to build a plan on this machine, with the command."""
    return f"build it here: {manifest.command(path)}"


def rebuild_for(path: Path, manifest: Manifest, gpu: Gpu) -> str:
    """Advice for a plan that is for other GPUs than this one."""
    if manifest.built.target != "tensorrt-rtx" or capability_of(gpu.capability) < capability_of(AMPERE):
        return rebuild(path, manifest)
    options = replace(manifest.options, compute_capability=(), unlisted_gpu=True)
    line = replace(manifest, options=options).command(path)
    return f"TensorRT-RTX may run on it without listing it: {line}"


def look_here() -> Here:
    """The GPUs and the installed versions of TensorRT. Imports nothing."""
    return Here(look_for_gpus(), {target: v for target in TARGETS if (v := installed_tensorrt(target))})


def installed_tensorrt(target: str) -> str:
    """The version of TensorRT installed for a target; empty if none is."""
    return installed_version(*TENSORRT_DISTRIBUTIONS[target])


def made_by(data: bytes) -> tuple[str, str]:
    """Target and version named by a plan's first bytes; both empty if the bytes name none.

    TensorRT-RTX 1.7 writes this layout, and trtexec reads it from TensorRT's plans. It is a hint, not a proof.
    """
    target = TAGS.get(data[:4], "")
    has_version = target and len(data) >= VERSION_AT + 4 and data[4] == 0
    return target, ".".join(map(str, data[VERSION_AT : VERSION_AT + 4])) if has_version else ""


def read_plan(path: Path, keys: Sequence[Path] = (), require_verdict: bool = False) -> tuple[bytes, Manifest]:
    """A plan's bytes and its manifest, checked against each other, the keys and the verdict.

    keys: public keys (PEM files). One of them must have signed the plan; empty: no signature is required.
    """
    text = read_bytes(path)
    if keys:
        from dlink.trt_runtime.signing import verify

        verify(path, text, keys)
    manifest = parse(text, path)
    data = read_exactly(path, manifest)
    target, version = made_by(data)
    if target and target != manifest.built.target:
        raise BadPlan(
            f"{path}: a plan of {TARGETS[target]} {version}, its manifest says {manifest.title}; "
            f"{rebuild(path, manifest)}"
        )
    if require_verdict:
        check_verdict(path, manifest)
    return data, manifest


def read_exactly(path: Path, manifest: Manifest) -> bytes:
    """The plan's bytes, if size and hash are those in the manifest."""
    size = path.stat().st_size
    if size != manifest.plan.bytes:
        kind = "truncated" if size < manifest.plan.bytes else "another"
        raise BadPlan(
            f"{path}: {kind}: {size:,} bytes, {manifest_of(path).name} says {manifest.plan.bytes:,}; "
            f"{rebuild(path, manifest)}"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest.plan.sha256:
        raise BadPlan(
            f"{path}: damaged, or not the plan that {manifest_of(path).name} was written for; {rebuild(path, manifest)}"
        )
    return data


def check_verdict(path: Path, manifest: Manifest) -> None:
    """Raise Untrusted unless dlink-check found that this very plan draws the same roads."""
    check = f"check it: dlink-check {path} TILES --against CHECKPOINT"
    if manifest.verdict is None:
        raise Untrusted(f"{path}: nobody has checked that it draws the same {manifest.spec.target}s; {check}")
    if manifest.verdict.plan_sha256 != manifest.plan.sha256:
        raise Untrusted(f"{path}: its verdict belongs to an earlier build; {check}")
    if not manifest.verdict.same_roads:
        words = f"{manifest.spec.target}s: {manifest.verdict.words}"
        raise Untrusted(f"{path}: does not draw the same {words}; {check}, or build another")


def fit(path: Path, manifest: Manifest, here: Here | None = None) -> Gpu:
    """The GPU that will run the plan. Raises Mismatch or NoEngine where this machine cannot run it."""
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
        raise Mismatch(f"{path}: a plan of {title}, here is {TARGETS[target]} {version}; {rebuild(path, manifest)}")
    if not runs_on(manifest.runs_on, gpu):
        raise Mismatch(
            f"{path}: for GPUs of compute capability {manifest.runs_on.words()}"
            + (f" (built on {manifest.built.gpu})" if manifest.built.gpu else "")
            + f", here is {gpu}; {rebuild_for(path, manifest, gpu)}"
        )
    if major(here.gpus.driver) < major(manifest.built.cuda):
        raise Mismatch(
            f"{path}: built with a driver for CUDA {manifest.built.cuda}, the driver here is for "
            f"{here.gpus.driver}; update the driver, or {rebuild(path, manifest)}"
        )
    return gpu


def same_version(manifest: Manifest, version: str) -> bool:
    """Whether this TensorRT loads the plan: the version that built it, or a newer one if the plan allows that."""
    built, here = version_numbers(manifest.built.version), version_numbers(version)
    length = min(len(built), len(here))  # 8.6.1.post1 is the wheel of 8.6.1
    if length and built[:length] == here[:length]:
        return True
    return manifest.runs_on.newer_versions and built[:1] == here[:1] and here > built


def runs_on(where: RunsOn, gpu: Gpu) -> bool:
    """Whether the GPU is listed, or newer than the newest (or oldest) listed one where the plan allows that."""
    if gpu.capability in where.capabilities:
        return True
    listed = sorted(map(capability_of, where.capabilities)) or [(99, 0)]
    here = capability_of(gpu.capability)
    return (where.newer_gpus and here > listed[-1]) or (where.unlisted_gpus and here > listed[0])


def major(version: str) -> int:
    return (version_numbers(version) or (0,))[0]
