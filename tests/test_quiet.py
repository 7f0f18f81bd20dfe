"""Nothing that was not asked for: no name is looked up, no process begins, no file is written elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlink.nets.embedded import EMBEDDED

SOURCE = Path(__file__).with_name("watched.c")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux: LD_PRELOAD")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The library that writes down what a process does."""
    if not (cc := shutil.which("cc")):
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    path = tmp_path_factory.mktemp("watched") / "watched.so"
    subprocess.run([cc, "-Wall", "-Werror", "-shared", "-fPIC", "-o", path, SOURCE, "-ldl"], check=True)
    return path


class Watched:
    """Runs Python in an empty home and an empty folder, watched."""

    def __init__(self, library, folder):
        self.folder, self.home, self.work, self.log = folder, folder / "home", folder / "work", folder / "log"
        self.home.mkdir()
        self.work.mkdir()
        gone = ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "ORT_DISABLE_TELEMETRY"]
        gone += [
            "CI",
            "GITHUB_ACTIONS",
            "GITLAB_CI",
            "TF_BUILD",
            "JENKINS_URL",
        ]  # it is quiet there
        self.environment = {k: v for k, v in os.environ.items() if k not in gone} | {
            "HOME": str(self.home), "DLINK_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
            "WATCHED": str(self.log), "LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def python(self, code, *arguments):
        """What it did: lines of watched.c, and the files it left where nobody asked for any."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, cwd=self.work, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = self.log.read_text().split("\n")[:-1] if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [*lines, *(str(p) for top in (self.home, self.work) for p in top.rglob("*") if p.is_file())]

    def dlink(self, *arguments):
        return self.python("from dlink.cli.main import dlink; dlink()", *arguments)


@pytest.fixture
def watched(library, tmp_path):
    return Watched(library, tmp_path)


def test_what_is_watched_is_seen(watched):
    code = """
import os, socket
socket.getaddrinfo("localhost", 1)
if not os.fork(): os._exit(0)
open(os.path.expanduser("~/left"), "w").close()
os.posix_spawn("/bin/true", ["true"], {})
"""
    found = watched.python(code)
    assert {line.split(" ")[0] for line in found[:-1]} == {"getaddrinfo", "fork", "posix_spawn"}
    assert found[-1].endswith("left")


def test_what_openvino_and_onnx_runtime_do_by_themselves_would_be_seen(watched):
    assert any("google-analytics" in line for line in watched.python("import openvino"))
    code = "import onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1])"
    made = watched.folder / "roads.onnx"
    watched.dlink("export", EMBEDDED, made, "--tile", "64")
    assert any("onnxruntime" in line for line in watched.python(code, made))


def test_no_import_does_more_than_import(watched):
    code = """
import importlib, pkgutil, dlink
for found in pkgutil.walk_packages(dlink.__path__, "dlink."):
    if ".bench.peers" not in found.name:
        try:
            importlib.import_module(found.name)
        except ImportError as e:  # what has no GPU's libraries here
            assert e.name and e.name.split(".")[0] in ("pycuda", "tensorrt"), e
"""
    assert watched.python(code) == []


def test_opening_and_running_a_model_does_nothing_else(watched):
    made = watched.folder / "roads.onnx"
    watched.dlink("export", EMBEDDED, made, "--tile", "64")
    code = """
import sys, numpy as np
from dlink.runtime import open_model
with open_model(sys.argv[1]) as model:
    image = np.zeros((100, 100, 3), np.uint8)
    model.mask(image), model.submit(image).result()
"""
    assert watched.python(code, made) == []


def test_no_command_does_more_than_it_was_asked_for(watched):
    at = watched.folder
    scenes, roads = at / "scenes", at / "roads.onnx"
    asked = watched.dlink("scenes", scenes, "--count", "5", "--size", "128", "--workers", "2")
    assert {line.strip() for line in asked} == {"fork"}  # its workers
    small = ["--width", "0.125", "--crop", "64", "--batch", "1", "--epochs", "1"]
    limits = ["--samples", "3", "--held", "1", "--method", "max", "--min-agreement", "0", "--max-iou-drop", "1"]
    commands = [
        ["--help"],
        ["export", EMBEDDED, roads, "--tile", "64"],
        ["segment", roads, scenes, "-o", at / "masks", "--overlay"],
        ["check", roads, scenes, "--against", EMBEDDED, "--report", at / "report.html", "--limit", "2"],
        ["tune", roads, scenes, "--views", "1"],
        ["layers", roads, scenes],
        ["calibrate", roads, scenes, "-o", at / "int8.onnx", *limits],
        ["build", roads, "-o", at / "roads.plan", "--target", "tensorrt-rtx"],
        ["inspect", roads, "--explain"],
        ["sign", "--new", at / "key", at / "roads.plan"],
        ["score", at / "masks", scenes],
        ["train", scenes, "-o", at / "net.th", *small],
        ["bench", roads, "--tile", "64", "--seconds", "0.2"],
        ["doctor"],
    ]
    assert [(c[0], watched.dlink(*c)) for c in commands] == [(c[0], []) for c in commands]
