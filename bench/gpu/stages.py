"""Runs the checks that need a GPU, in stages of a few minutes. Results are written at once; a stage can be repeated.

    python -m dlink.bench.gpu.stages 1 2 3      (by bench/gpu/run.sh, which sets the path)

A stage has several steps, each a process of its own with a time limit. A step that has ended well is not run again,
unless its input files or its command line have changed, or with --again. Changes of dlink's own code are not detected.
Lines go to results.jsonl in the stage folder and in $OUT, whose copy has the lines of earlier calls too.
"""

import ctypes
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import click

from dlink.bench.gpu.aims import AIMS, Row, aims_table, outcomes
from dlink.bench.gpu.parts import read_manifest, stage_folder, unpacked
from dlink.bench.rows import append_row
from dlink.runtime.files import file_sha256
from dlink.trt_runtime.nvidia_driver import Gpus, look_for_gpus

ROOT = Path(__file__).resolve().parents[2]  # resolved, because the folder may be a link
TYPES = ROOT / "build" / "types"
STAGE_S, CALL_S = 480, 570  # the most seconds of a stage, and of all stages of a call
PR_SET_PDEATHSIG = 1
SUMMARY = re.compile(r"\d (passed|failed|errors?)\b.* in ")  # the last line of pytest
LEAST_S = 5  # with less time left, a step does not start
TOOLKIT = Path("/usr/local/cuda/bin")
APPEND = "{append}"  # in a command: the file for its lines
TARGETS = {"rtx": "tensorrt-rtx", "trt86": "tensorrt"}
NOT_FOR = {"trt86": ("int8",)}  # endings: before 10.2 TensorRT reads their transposed convolutions along the wrong axis
TIMED = ("fp16", "int8", "int8.conv")  # endings of the files whose runtime is timed
FALLBACK = "import bz2, ctypes, lzma, zlib"


@dataclass(frozen=True)
class StageStep:
    """One process of a stage."""

    name: str
    arguments: Sequence[object]  # of Python
    limit: int  # s
    engine: str = ""  # rtx or trt86: selects the Python, and names the figures' TensorRT
    reads: tuple[Path, ...] = ()  # input files and folders
    under: tuple[str, ...] = ()  # a program that runs Python
    lacks: str = ""  # why the step can't run


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    side: int  # px, of the tiles of the kernels' bandwidth and of PyTorch's times
    calls: int  # of each way
    soak: int  # tiles
    tests: str  # of tests/gpu, for pytest -k; empty for all


class Host:
    """The machine with the GPU: its stage folder, its items, its results and its Pythons."""

    def __init__(self, engine: str | None, again: bool, sizes: Sizes) -> None:
        self.stage, self.again, self.sizes, self.gpus = stage_folder(), again, sizes, look_for_gpus()
        self.stage.mkdir(parents=True, exist_ok=True)
        self.items = read_manifest(self.stage)
        self.results = Results(self.stage / "results.jsonl")
        self.chosen_engine = engine

    def has(self, name: str) -> bool:
        return name in self.items and unpacked(name, self.items[name], self.stage)

    def takes(self) -> bool | None:
        """Whether TensorRT-RTX accepts this GPU; None before stage 4."""
        return bool(row["takes"]) if (row := self.stage_4_row()) else None

    def engine(self) -> str:
        """The engine for the full-size network."""
        return self.chosen_engine or ("trt86" if self.takes() is False or not self.has("rtx") else "rtx")

    def title(self, engine: str) -> str:
        return str(self.items[engine]["facts"].get("engine", engine)) if engine else ""

    def python(self, engine: str) -> Path:
        return self.stage / "trt86" / "bin" / "python3.10" if engine == "trt86" else Path(sys.executable)

    def environment(self, engine: str) -> dict[str, str]:
        """Environment variables: the tree's packages come first, then the bundle's for the host's Python."""
        paths = [str(TYPES)]
        if engine != "trt86":
            paths += [str(self.stage / "rtx" / "site"), os.environ.get("PYTHONPATH", "")]
        more = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        if engine == "rtx" and (options := self.rtx_options()[0]):
            more["DLINK_BUILD_WITH"] = " ".join(options)  # tests/gpu builds plans too
        return {**os.environ, **more}

    def rtx_options(self) -> list[list[str]]:
        """Build options for TensorRT-RTX on this GPU: those that worked in stage 4, else those that stage 4 tries."""
        if (row := self.stage_4_row()) and row["takes"]:
            return [row["with"]]
        return [["--unlisted-gpu"], ["--unlisted-gpu", "--compute-capability", "current"]] if self.unlisted else [[]]

    def stage_4_row(self) -> Row | None:
        """The row of stage 4 for this GPU."""
        name = gpu_name(self.gpus)
        return next((row for row in reversed(self.results.rows) if "takes" in row and row["gpu"] == name), None)

    @cached_property
    def unlisted(self) -> bool:
        """Whether TensorRT-RTX does not list this GPU."""
        code = "from dlink.bench.gpu.takes import listed; print(listed())"
        done = subprocess.run([sys.executable, "-c", code], env=self.environment(""), capture_output=True, text=True)
        return done.stdout.strip() == "False"


class Results:
    """results.jsonl in the stage folder, and its copy in $OUT, which comes back even if a call is killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = read_rows([path]) if path.exists() else []
        out = os.environ.get("OUT")
        self.out = Path(out) if out else None
        if self.out and self.rows:
            shutil.copy(path, self.out / path.name)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        append_row(self.path, row)
        append_row(self.out / self.path.name if self.out else None, row)

    @property
    def log(self) -> Path:
        return (self.out or self.path.parent) / "log.txt"


def read_rows(paths: Sequence[Path]) -> list[Row]:
    """The rows of some files, in their order; an unfinished line is left out."""
    rows = []
    for path in paths:
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row not in rows:  # each call's file repeats the rows of earlier calls
                rows.append(row)
    return rows


# -- the stages


@dataclass(frozen=True)
class Stage:
    """Several steps in their order."""

    title: str
    expected_s: int
    items: tuple[str, ...]
    steps: Callable[[Host], Iterator[StageStep]]


def bench(name: str, *arguments: object, append: bool = True) -> list[object]:
    """The arguments that run a module of dlink, which appends its lines to a file."""
    return ["-m", f"dlink.{name}", *arguments, *(["--append", APPEND] if append else [])]


Steps: TypeAlias = Iterator[StageStep]  # made one by one, because a step may depend on the results of earlier steps


def card(host: Host) -> Steps:
    yield StageStep("card", bench("bench.gpu.card"), 120)
    yield StageStep("bits", bench("bench.kernels", "--check"), 120)


def kernels(host: Host) -> Steps:
    found = shutil.which("compute-sanitizer", path=f"{os.environ.get('PATH', '')}{os.pathsep}{TOOLKIT}")
    lacks = "" if found else "no compute-sanitizer on the path"
    for tool in ("memcheck", "racecheck"):
        under = (str(found), "--tool", tool, "--error-exitcode", "1")
        yield StageStep(tool, bench("bench.kernels", "--check"), 170, under=under, lacks=lacks)
    yield StageStep("bandwidth", bench("bench.kernels", "--side", host.sizes.side), 120)


def beside(host: Host) -> Steps:
    yield StageStep("beside", bench("bench.gpu.beside", "--captures", 4 * host.sizes.calls), 150)


def takes(host: Host) -> Steps:
    file = host.stage / "quarter" / "quarter.fp16.onnx"
    for number, options in enumerate(host.rtx_options()):
        if number and host.takes():
            return
        plan = host.stage / "plans" / f"takes{number}.plan"
        plan.parent.mkdir(exist_ok=True)
        command = ["-c", "from dlink.cli.main import dlink; dlink()", "build", file, "-o", plan]
        yield StageStep("takes-build", [*command, "--target", TARGETS["rtx"], *options], 150, "rtx", (file,))
        yield StageStep("takes", bench("bench.gpu.takes", plan, "--with", " ".join(options)), 150, "rtx", (file, plan))


def tests(host: Host, engine: str = "rtx") -> Steps:
    chosen = ["-k", host.sizes.tests] if host.sizes.tests else []
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", *chosen, "tests/gpu"]
    yield StageStep("tests", command, 420, engine)


def build_and_tests(host: Host) -> Steps:
    prepare86(host)
    yield from reference(host, "quarter")
    yield from builds(host, "trt86", "quarter", ("fp16",), 300)
    yield from tests(host, "trt86")


def chain(host: Host, engine: str = "rtx") -> Steps:
    if engine == "trt86":
        prepare86(host)
    yield from reference(host, "quarter")
    yield from builds(host, engine, "quarter", ("fp16", "int8", "int8.conv", "fp32", "int8.fp16"), 300)
    yield from runs(host, engine, "quarter")


def chain86(host: Host) -> Steps:
    return chain(host, "trt86")


def full(host: Host) -> Steps:
    engine = host.engine()
    if engine == "trt86":
        prepare86(host)
    yield from reference(host, "full")
    yield from builds(host, engine, "full", ("fp16", "int8", "int8.conv"), 470)
    checkpoint = checkpoint_of(host, "full")
    lacks = "" if checkpoint.exists() else "the checkpoint is not here; send its parts and `take` them"
    yield StageStep(
        "peer", bench("bench.gpu.peer", checkpoint, "--side", host.sizes.side), 240, reads=(checkpoint,), lacks=lacks
    )


def full_runtime(host: Host) -> Steps:
    return runs(host, host.engine(), "full")


def checkpoint_of(host: Host, item: str) -> Path:
    return host.stage / ("checkpoint" if item == "full" else item) / "roads.th"


def reference(host: Host, item: str) -> Steps:
    """Record PyTorch's roads with the host's Python."""
    folder, checkpoint = host.stage / item, checkpoint_of(host, item)
    if checkpoint.exists():
        like, tiles = folder / f"{item}.fp16.onnx", folder / "tiles"
        arguments = [checkpoint, tiles, host.stage / f"{item}.roads", "--like", like]
        yield StageStep(
            f"roads of {item}", bench("bench.recorded", *arguments, append=False), 200, reads=(checkpoint, tiles, like)
        )


def builds(host: Host, engine: str, item: str, endings: Sequence[str], limit: int) -> Steps:
    """Build a plan of each file; measure its precision, its network's time and its roads."""
    roads, tiles = host.stage / f"{item}.roads", host.stage / item / "tiles"
    for ending in endings:
        file = host.stage / item / f"{item}.{ending}.onnx"
        if not file.exists() or ending in NOT_FOR.get(engine, ()):
            continue
        arguments: list[object] = [file, "--target", TARGETS[engine], "--plans", host.stage / "plans" / engine]
        options = ["--timing-cache", str(host.stage / "timing.cache")] if engine == "trt86" else host.rtx_options()[0]
        arguments += ["--build-with", shlex.join(options)]
        if roads.exists():
            arguments += ["--against", roads, "--tiles", tiles]
        yield StageStep(file.stem, bench("cli.gpu", *arguments), limit, engine, (file, roads))


def runs(host: Host, engine: str, item: str) -> Steps:
    """Time the first mask and the runtime of the plans that were built, with a soak."""
    for ending in TIMED:
        plan = host.stage / "plans" / engine / f"{item}.{ending}.plan"
        if ending in NOT_FOR.get(engine, ()) or not (host.stage / item / f"{item}.{ending}.onnx").exists():
            continue
        lacks = "" if plan.exists() else f"{plan.name} was not built"
        yield StageStep(f"first {plan.stem}", bench("bench.first", plan), 90, engine, (plan,), lacks=lacks)
        command = bench("bench.runtime", plan, "--calls", host.sizes.calls, "--soak", host.sizes.soak)
        yield StageStep(f"runtime {plan.stem}", command, 150, engine, (plan,), lacks=lacks)


def prepare86(host: Host) -> None:
    """Let the bundle's Python 3.10 find missing libraries, and the host's OpenCV, whose binary serves every Python."""
    if not host.has("trt86"):
        return
    python, [site] = host.python("trt86"), (host.stage / "trt86").glob("py310/lib/python3.10/site-packages")
    if subprocess.run([python, "-c", FALLBACK], capture_output=True).returncode:
        (host.stage / "trt86" / "fallback.on").touch()
    found = importlib.util.find_spec("cv2")
    if found and found.origin and not (site / "cv2").exists():
        there = Path(found.origin).parent
        for name in ("cv2", "opencv_python_headless.libs", "opencv_python.libs"):
            if (there.parent / name).exists() and not (site / name).exists():
                (site / name).symlink_to(there.parent / name)


STAGES = {
    1: Stage("driver, PTX, matrix speed; the kernels' bits", 40, ("rtx",), card),
    2: Stage("memcheck, racecheck, bandwidth", 120, ("rtx",), kernels),
    3: Stage("captures beside a PyTorch thread", 30, ("rtx",), beside),
    4: Stage("whether TensorRT-RTX accepts this GPU", 40, ("rtx", "quarter"), takes),
    5: Stage("TensorRT-RTX: tests/gpu", 90, ("rtx",), tests),
    6: Stage("TensorRT-RTX: quarter width, builds to soak", 180, ("rtx", "quarter"), chain),
    7: Stage("TensorRT 8.6: a build, tests/gpu", 180, ("rtx", "trt86", "quarter"), build_and_tests),
    8: Stage("TensorRT 8.6: quarter width, builds to soak", 420, ("rtx", "trt86", "quarter"), chain86),
    9: Stage("full size: builds, network, roads, PyTorch's times", 460, ("rtx", "full"), full),
    10: Stage("full size: the runtime's table and soak", 150, ("rtx", "full"), full_runtime),
}


# -- running them


@click.command()
@click.argument("what", nargs=-1, required=True)
@click.option("--again", is_flag=True, help="Also run steps that have ended well before.")
@click.option("--engine", type=click.Choice(list(TARGETS)), help="For stages 9 and 10.  [default: by stage 4's result]")
@click.option("--seconds", default=CALL_S, show_default=True, help="Limit for all stages.")
@click.option("--side", default=1024, show_default=True, help="Side of the tiles for kernels and PyTorch, px.")
@click.option("--calls", default=50, show_default=True, help="Calls of each way that is timed.")
@click.option("--soak", default=500, show_default=True, help="Tiles of the soak, without a pause.")
@click.option("--tests", default="", help="Which of tests/gpu, as for pytest -k.  [default: all]")
def main(
    what: tuple[str, ...], again: bool, engine: str | None, seconds: int, side: int, calls: int, soak: int, tests: str
) -> None:
    """Run stages by number, `list` the stages, or compare the figures with the `aims`."""
    if what[0] == "list":
        for number, stage in STAGES.items():
            click.echo(f"{number:2}  about {stage.expected_s:3} s  {stage.title}  (needs {', '.join(stage.items)})")
        return
    if what[0] == "aims":
        named, own = [Path(name) for name in what[1:]], stage_folder() / "results.jsonl"
        if lacking := [path for path in named if not path.exists()]:
            raise click.ClickException(f"{lacking[0]}: no such file; a call leaves results.jsonl in $OUT")
        click.echo("\n".join(aims_table(read_rows(named or [own] * own.exists()))))
        return
    if strange := [name for name in what if not name.isdecimal() or int(name) not in STAGES]:
        raise click.ClickException(f"{strange[0]}: not a stage; `list` names the stages, `aims` shows the results")
    signal.signal(signal.SIGTERM, lambda *caught: sys.exit(143))
    host = Host(engine, again, Sizes(side, calls, soak, tests))
    until = time.monotonic() + seconds
    done = [run_stage(int(name), host, until) for name in what]
    if not all(done):
        raise click.ClickException("some steps did not end well; see the lines above and log.txt")


def run_stage(number: int, host: Host, until: float) -> bool:
    """Run a stage; whether all of its steps ended well, now or before."""
    stage, name = STAGES[number], gpu_name(host.gpus)
    click.echo(f"stage {number}: {stage.title}")
    if not host.gpus.found:
        raise click.ClickException(f"this needs an NVIDIA GPU, and there is none here: {host.gpus.fault}")
    needed = [*stage.items, *["trt86"] * (number > 8 and host.engine() == "trt86")]
    if lacking := [item for item in needed if not host.has(item)]:
        click.echo(f"  not run: {', '.join(lacking)} is not here; send its parts and `take` them")
        return False
    if number in (5, 6) and host.takes() is False:
        click.echo("  not run: TensorRT-RTX does not accept this GPU; run stages 7 and 8 instead")
        return True
    base = {"gpu": name, "driver": host.gpus.release or host.gpus.driver, "stage": number}
    until = min(until, time.monotonic() + STAGE_S)
    good = [run_step(step, host, base, until) for step in stage.steps(host)]
    for outcome in outcomes(
        [r for r in host.results.rows if r.get("gpu") == name], [a for a in AIMS if number in a.stages]
    ):
        host.results.add({"when": now(), **base, "tensorrt": outcome.tensorrt, **outcome.to_json()})
        figure = "not run" if outcome.figure is None else f"{outcome.figure:.3g} {outcome.aim.unit}".strip()
        met = "" if outcome.met is None else ", met" if outcome.met else ", NOT MET"
        click.echo(f"  aim: {outcome.aim.name}: {figure}{met}")
    return all(good)


def run_step(step: StageStep, host: Host, base: Row, until: float) -> bool:
    """Run a step, unless it has ended well with the same inputs before; its lines are stored at once."""
    command = [*step.under, str(host.python(step.engine)), *map(str, step.arguments)]
    base = {"when": now(), **base, "tensorrt": host.title(step.engine), "step": step.name}
    if not step.lacks and (left := min(step.limit, int(until - time.monotonic()))) < LEAST_S:
        step = StageStep(step.name, step.arguments, 0, lacks="no time left; run the stage again")
    if step.lacks:
        click.echo(f"  {step.name}: not run: {step.lacks}")
        host.results.add({**base, "not_run": step.lacks})
        return False
    mark = host.stage / "marks" / key_of(command, step.reads, base["gpu"])
    if mark.exists() and not host.again:
        click.echo(f"  {step.name}: done before")
        return True
    mark.unlink(missing_ok=True)
    begun, log_at = time.monotonic(), size_of(host.results.log)
    code = watched(command, host, step.engine, left, lambda line: host.results.add({**line, **base}))
    seconds = round(time.monotonic() - begun, 1)
    output = tail(host.results.log, log_at)
    why = f"stopped after {left} s; " if code is None else ""
    words = why + next((line for line in reversed(output) if SUMMARY.search(line)), output[-1] if output else "")
    host.results.add({**base, "ok": code == 0, "exit": code, "seconds": seconds, "said": words})
    click.echo(f"  {step.name}: {'ok' if code == 0 else 'FAILED'}, {seconds:.0f} s: {words}")
    if code != 0:
        click.echo("\n".join(f"    {line}" for line in output[-8:-1]))
    if code == 0:
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    return code == 0


def watched(command: list[str], host: Host, engine: str, limit: int, keep: Callable[[Row], None]) -> int | None:
    """Run a command; its exit code, None after its limit. Its lines go to `keep` as they come; no process is left."""
    lines = Lines(host.stage / "lines.jsonl")
    command = [str(lines.path) if part == APPEND else part for part in command]
    until = time.monotonic() + limit
    with host.results.log.open("ab") as log:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, env=host.environment(engine), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=end_with_us,
        )  # fmt: skip
        try:
            while process.poll() is None and time.monotonic() < until:
                lines.hand_on(keep)
                time.sleep(0.05)
            return process.poll()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            lines.hand_on(keep)


class Lines:
    """A file that a step appends to."""

    def __init__(self, path: Path) -> None:
        self.path, self.seen = path, 0
        path.unlink(missing_ok=True)

    def hand_on(self, keep: Callable[[Row], None]) -> None:
        """Give the new lines to `keep`, only complete ones."""
        whole = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        for line in whole[self.seen :]:
            keep(json.loads(line))
        self.seen = len(whole)


def end_with_us() -> None:
    """Let a step end with this process, which may be killed; see prctl(2)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def key_of(command: list[str], reads: Sequence[Path], gpu: str) -> str:
    """The hash of everything that a step's result depends on, except dlink's code."""
    files = [file for path in reads for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.is_file()]
    return hashlib.sha256(repr((command, gpu, [file_sha256(file) for file in files])).encode()).hexdigest()[:24]


def tail(log: Path, since: int) -> list[str]:
    """The lines that were written after a position, without empty lines and the command."""
    with log.open("rb") as f:
        f.seek(since)
        lines = f.read().decode(errors="replace").splitlines()
    return [line.strip()[:400] for line in lines if line.strip() and not line.startswith("$ ")]


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def gpu_name(gpus: Gpus) -> str:
    return gpus.found[0].name if gpus.found else ""


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


if __name__ == "__main__":
    main()
