"""Install each extra from a wheel into an environment of its own, and run its first command.

python -m tests.support.installs [EXTRA ...]      all where none is named; `make installs` and .ci/run run it

Needs a package index. Prints a line for each extra, and what could not be run here as that; exits with 1 where anything
failed. Downloads stay in pip's cache; an environment is removed before the next is made.
"""

import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dlink.doctor.extras import EXTRAS
from tests.support.environments import ROOT, build_wheel
from tests.support.trials import NO_GPU, TRIALS, Trial, write_files

CORE = Trial(("doctor",), "roads.onnx")
NO_PYCUDA = "Failed building wheel for pycuda"
LACKING = {  # what is said where a GPU's trial can't be run, and what it needs
    NO_GPU: "needs an NVIDIA GPU",
    "this needs tensorrt:": "needs TensorRT, which comes from NVIDIA",
}


class Failed(Exception):
    """What went wrong, in a line."""


class NotRun(Exception):
    """What this machine lacks."""


def main(names: list[str]) -> int:
    begun, failed, skipped = time.monotonic(), 0, 0
    with TemporaryDirectory() as folder:
        (files := Path(folder, "files")).mkdir()
        write_files(files)
        wheel = build_wheel(Path(folder))
        for name in names or ["", *EXTRAS]:
            start = time.monotonic()
            try:
                outcome, words = "ok", tried(name, wheel, Path(folder))
            except NotRun as e:
                outcome, words, skipped = "not run", str(e), skipped + 1
            except Failed as e:
                outcome, words, failed = "FAILED", str(e), failed + 1
            print(f"{name or 'core':<9} {outcome:<8} {time.monotonic() - start:>4.0f} s  {words}", flush=True)
    print(f"{failed} failed, {skipped} could not be run here; {(time.monotonic() - begun) / 60:.1f} minutes")
    return int(failed > 0)


def tried(name: str, wheel: Path, folder: Path) -> str:
    """Install an extra, or the core alone, and run its trial; what was run."""
    trial = TRIALS[name] if name else CORE
    extras = [name, *EXTRAS[name].beside] if name else []
    ran: list[str] = []
    with fresh(folder / "env") as env, copied(folder / "files", folder / "work") as work:
        install(env, [f"dlink[{','.join(extras)}] @ {wheel.as_uri()}", *trial.besides])
        for line in trial.commands:
            step, _, arguments = line.partition(" ")
            done = run([env / "bin" / f"dlink-{step}", *arguments.split()], work)
            for words, need in LACKING.items() if trial.gpu else ():
                if words in done.stderr:
                    raise NotRun("; ".join([*(f"{command}: ok" for command in ran), f"dlink-{step} {need}"]))
            if done.returncode:
                raise Failed(f"dlink-{line}: {last_line(done.stderr)}")
            ran.append(f"dlink-{line}")
        if not (work / trial.made).exists():
            raise Failed(f"{ran[-1]}: left no {trial.made}")
    return ", ".join(ran)


def install(env: Path, requirements: list[str]) -> None:
    pip = [env / "bin" / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
    done = run([*pip, *requirements], env)
    if NO_PYCUDA in done.stdout + done.stderr:
        raise NotRun("pycuda is compiled where it is installed, and needs the CUDA toolkit with cuda.h and curand.h")
    if done.returncode:
        raise Failed(f"pip install: {last_line(done.stderr)}")


@contextmanager
def fresh(env: Path) -> Iterator[Path]:
    """An environment with pip alone, removed afterwards."""
    venv.create(env, with_pip=True)
    try:
        yield env
    finally:
        shutil.rmtree(env)


@contextmanager
def copied(source: Path, work: Path) -> Iterator[Path]:
    shutil.copytree(source, work)
    try:
        yield work
    finally:
        shutil.rmtree(work)


def run(command: list[str | Path], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Without what would bring in modules from elsewhere, or files that were made before."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**clean, "DLINK_CACHE": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing said"])[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
