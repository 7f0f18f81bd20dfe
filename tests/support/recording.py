"""The real pycuda, built from its source, on a driver that only writes down what it is asked (recording_cuda.cpp).

Each script runs in a process of its own, with what recorded.py has; what it says comes back. Built once into
build/recording, and again where pycuda, this Python or the driver's text change.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.support import fake_pycuda

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "recording"
SOURCE = ROOT / "tests" / "support" / "recording_cuda.cpp"
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wl,-soname,libcuda.so.1")
NOWHERE = ("Could not find a version", "No matching distribution")  # pip's words where there is no index
BEGIN = "from tests.support.recorded import *\n"


@pytest.fixture(scope="session")
def recorder():
    """A function that runs a script and returns what it says."""
    if sys.platform != "linux":
        pytest.skip("needs Linux: pycuda is built for it here")
    for program in ("g++", "nm"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}: apt-get install g++")
    BUILD.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(BUILD / "lock"):
        site = install(build_pycuda())
        library = build_driver(next(site.glob("pycuda/_driver*.so")))
    env = {
        **os.environ,
        "PYTHONPATH": before("PYTHONPATH", site, ROOT),
        "LD_LIBRARY_PATH": before("LD_LIBRARY_PATH", library.parent),
        "PYTHONWARNINGS": "default",
    }

    def run(*scripts, code=0):
        text = BEGIN + "".join(textwrap.dedent(script) for script in scripts)
        done = subprocess.run([sys.executable, "-c", text], env=env, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        said = [json.loads(line) for line in done.stdout.splitlines()]
        return Ran(said, done.stderr)

    return run


def before(name, *folders):
    """Folders in front of those that a variable of the environment names."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get(name)])])


def run_here(script):
    """A script on tests/support/fake_pycuda.py, and what it says."""
    said, cuda = [], fake_pycuda.make()
    cuda.init()
    names = {"cuda": cuda, "np": np, "primary": cuda.Device(0).retain_primary_context}
    exec(textwrap.dedent(script), {**names, "say": lambda *values: said.extend(json.loads(json.dumps(values)))})
    fake_pycuda.reset()
    return said


class Ran(list):
    """What a script has said, and what it wrote to stderr."""

    def __init__(self, said, stderr):
        super().__init__(said)
        self.stderr = stderr


@contextmanager
def one_at_a_time(path):
    import fcntl  # there is none on Windows

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_pycuda():
    """Its wheel."""
    fetch([ROOT / "bench" / "gpu" / "pycuda.sh", sys.executable, BUILD])
    [wheel] = BUILD.glob("pycuda-*.whl")
    return wheel


def fetch(command):
    """Run what needs a package index."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and any(words in done.stderr for words in NOWHERE):
        pytest.skip("needs pycuda's source: a package index for pip")
    assert done.returncode == 0, done.stderr


def install(wheel):
    """A folder with pycuda and what it needs."""
    site, mark = BUILD / "site", BUILD / "site.made"
    if not is_made(mark, wheel.read_bytes()):
        shutil.rmtree(site, ignore_errors=True)
        fetch([sys.executable, "-m", "pip", "install", "-q", "--target", site, wheel])
        made(mark, wheel.read_bytes())
    return site


def build_driver(extension):
    """libcuda.so.1 with all functions that pycuda's extension is linked to; those of CUDA that SOURCE lacks fail."""
    library, mark = BUILD / "libcuda.so.1", BUILD / "libcuda.made"
    said = subprocess.run(["nm", "-D", "--undefined-only", extension], check=True, capture_output=True, text=True)
    there = set(re.findall(r"^int (cu\w+)\(", SOURCE.read_text(), re.MULTILINE))
    lacking = sorted(set(re.findall(r" U (cu[A-Z]\w+)$", said.stdout, re.MULTILINE)) - there)
    rest = "".join(f'int {name}() {{ return not_here("{name}"); }}\n' for name in lacking)
    text = f'#include "{SOURCE}"\nextern "C" {{\n{rest}}}\n'
    if not is_made(mark, text.encode() + SOURCE.read_bytes()):
        (BUILD / "libcuda.cpp").write_text(text)
        subprocess.run(["g++", *FLAGS, BUILD / "libcuda.cpp", "-o", library], check=True)
        made(mark, text.encode() + SOURCE.read_bytes())
    return library


def is_made(mark, source):
    return mark.exists() and mark.read_text() == hashlib.sha256(source).hexdigest()


def made(mark, source):
    mark.write_text(hashlib.sha256(source).hexdigest())
