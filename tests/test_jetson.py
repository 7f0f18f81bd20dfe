"""docs/jetson.md: what it tells pip to install exists for a Jetson, and its other lines say what the code does."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename

from dlink.onnx_graph.model import read_model
from dlink.runtime.errors import DlinkError
from tests.support.calibrated import quantise, small
from tests.support.environments import PROJECT, ROOT
from tests.support.models import save

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "jetson.md").read_text()
PYCUDA = ("pytools>=2011.2", "platformdirs>=2.2.0", "mako")  # what pycuda 2026.1 requires; it comes as source alone
SYSTEMS = {"JetPack 6": ("3.10", 35), "JetPack 7": ("3.12", 39)}  # Python and glibc 2.x of Ubuntu 22.04 and 24.04
NO_INDEX = re.compile("connection broken|NewConnectionError|ConnectTimeout|ProxyError", re.IGNORECASE)


def blocks(heading, language):
    """The fenced blocks under a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def pip_lines(heading):
    [lines] = blocks(heading, "sh")
    return [shlex.split(line)[2:] for line in lines.splitlines() if line.startswith("pip install ")]


def needed(extra):
    """What an extra installs, by pyproject.toml."""
    for line in PROJECT["project"]["optional-dependencies"][extra]:
        if ours := re.fullmatch(r"dlink\[(\w+)\]", line):
            yield from needed(ours[1])
        else:
            yield line


def requirements(heading):
    """What the page's lines install together, without what comes as source alone."""
    found = []
    for word in (word for line in pip_lines(heading) for word in line):
        if extra := re.fullmatch(r"\.\[(\w+)\]", word):
            found += [*PROJECT["project"]["dependencies"], *needed(extra[1])]
        else:
            found.append(word)
    wheels = [line for line in dict.fromkeys(found) if not line.startswith("pycuda")]
    assert len(wheels) < len(set(found))
    return [*wheels, *PYCUDA]


def resolved(heading, lines, folder):
    """The wheels that pip would install on that JetPack, by name, with their versions.

    pip evaluates a requirement's markers for the Python that runs it, not for the one that is asked for.
    """
    python, glibc = SYSTEMS[heading]
    platforms = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, glibc + 1))]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
    command += ["--quiet", "--retries", "1", "--target", folder / "none", "--report", folder / "report.json"]
    command += ["--implementation", "cp", "--python-version", python]
    command += [word for platform in platforms for word in ("--platform", platform)]
    done = subprocess.run([*command, *lines], capture_output=True, text=True)
    if done.returncode and NO_INDEX.search(done.stderr):
        pytest.skip("needs a package index: a network")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "report.json").read_text())["install"]
    return {
        canonicalize_name(i["metadata"]["name"]): parse_wheel_filename(Path(i["download_info"]["url"]).name)
        for i in found
    }


@pytest.mark.parametrize("heading", SYSTEMS)
def test_there_is_a_wheel_for_all_that_pip_installs_on_a_jetson_but_pycuda(heading, tmp_path):
    wheels = resolved(heading, requirements(heading), tmp_path)
    assert {"numpy", "click", "onnx", "polygraphy", "opencv-python-headless"} <= wheels.keys()
    python = "cp" + SYSTEMS[heading][0].replace(".", "")
    for name, (_, version, _, tags) in wheels.items():
        assert any(t.platform == "any" or t.platform.endswith("_aarch64") for t in tags), (name, version)
    assert python in {tag.interpreter for tag in wheels["numpy"][3]}
    assert wheels["numpy"][1].major == (1 if heading == "JetPack 6" else 2)
    if heading == "JetPack 6":
        assert (wheels["opencv-python-headless"][1].major, wheels["opencv-python-headless"][1].minor) == (4, 11)


def test_on_jetpack_7_numpy_1_can_be_had_too(tmp_path):
    assert resolved("JetPack 7", [*requirements("JetPack 7"), "numpy<2"], tmp_path)["numpy"][1].major == 1


def test_every_line_for_jetpack_6_keeps_numpy_1_and_none_for_jetpack_7_does():
    assert all("numpy<2" in line for line in pip_lines("JetPack 6"))
    assert not any("numpy<2" in line for line in pip_lines("JetPack 7"))


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "roads.int8.onnx"
    save(quantise(small("dlinknet34", path.with_name("roads.onnx")), "conv", "fp32"), path)
    return path


def test_trtexecs_shapes_are_those_of_the_files_input(int8):
    lines = [line for block in blocks("JetPack 5", "sh") for line in block.splitlines()]
    value = onnx.load(int8).graph.input[0]
    assert len(lines) == 2
    for line in lines:
        shapes = dict(re.findall(r"--(min|opt|max)Shapes=(\S+)", line))
        assert shapes == {k: f"{value.name}:{n}x3x1024x1024" for k, n in (("min", 1), ("opt", 8), ("max", 8))}


def test_the_pages_python_gives_weights_in_float_and_a_file_that_dlink_refuses(int8, monkeypatch):
    monkeypatch.chdir(int8.parent)
    [code] = blocks("JetPack 5", "python")
    exec(code, {})
    weights = {i.data_type for i in onnx.load("roads.trt8.onnx").graph.initializer if len(i.dims) == 4}
    assert weights == {onnx.TensorProto.FLOAT}
    assert {node.op_type for node in onnx.load("roads.trt8.onnx").graph.node}.isdisjoint({"ConvTranspose", "Cast"})
    with pytest.raises(DlinkError):
        read_model(Path("roads.trt8.onnx"))
