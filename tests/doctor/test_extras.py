"""Each extra by itself: it brings what it promises to run, and the tables of installs say the same."""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata

import pytest

from dlink.cli.main import STEPS
from dlink.doctor.extras import EXTRAS, NEEDS, how_to_get, own
from tests.support.environments import PROJECT, ROOT, environment
from tests.support.trials import TRIALS, write_files

OPTIONAL = PROJECT["project"]["optional-dependencies"]
WITHOUT_GPU = [name for name, trial in TRIALS.items() if not trial.gpu]
MORE = (  # in no trial
    "scenes new --count 1",
    "spacenet ground -o new",
    "check roads.onnx tiles --against roads.onnx",
    "layers roads.onnx tiles",
    "tune roads.onnx tiles",
    "scout roads.onnx roads.onnx tiles",
    "bench roads.onnx",
    "distil tiles -o new.th --init roads.th",
    "slim roads.th tiles -o new.th",
    "finetune tiles -o new.onnx --init roads.onnx --ranges roads.plan.json",
    "replay tiles",
)
ALONE = {"doctor", "inspect"}  # what the core can do
LINES = [*(trial.commands[-1] for trial in TRIALS.values() if not trial.gpu), *MORE]
COMMANDS = {line.partition(" ")[0]: line for line in LINES}


@pytest.mark.parametrize("name", EXTRAS)
def test_pyproject_brings_what_the_table_says(name):
    included = [f"dlink[{','.join(EXTRAS[name].includes)}]"] if EXTRAS[name].includes else []
    needed = [f"{need.distributions[0]}>={need.least}" for need in own(name)]
    assert sorted(line.partition(";")[0] for line in OPTIONAL[name]) == sorted(included + needed)


def test_the_core_is_what_pyproject_says():
    numpy = next(need for need in NEEDS if need.name == "numpy")
    assert PROJECT["project"]["dependencies"] == ["click>=8.1", f"numpy>={numpy.least}"]


def test_every_extra_is_in_the_table_and_on_the_page_of_installs():
    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`([\w-]+)`", row)] == list(EXTRAS)
    assert OPTIONAL.keys() - EXTRAS.keys() == {"docs", "test"}


def test_every_command_is_had_by_some_extra():
    assert {step for extra in EXTRAS.values() for step in extra.commands} == set(STEPS) - {"doctor"}


def test_an_extra_is_tried_by_its_own_command():
    assert {name: trial.commands[-1].partition(" ")[0] for name, trial in TRIALS.items()} == {
        name: extra.commands[0] for name, extra in EXTRAS.items()
    }


@pytest.mark.parametrize(
    ("package", "command", "line"),
    [
        ("cv2", "", "pip install 'dlink[cpu]'"),
        ("cv2", "score", "pip install 'dlink[accuracy]'"),
        ("shapely", "", "pip install 'dlink[accuracy]'"),
        ("shapely", "calibrate", "pip install 'dlink[calib]'"),
        ("torch", "train", "pip install 'dlink[train]'"),
        ("osmium", "vectorize", "pip install 'dlink[osm]'"),
        ("onnx", "finetune", "pip install 'dlink[calib]'"),
        ("torch", "finetune", "pip install 'dlink[train]'"),
        ("onnx", "layers", "pip install 'dlink[build]'"),
        ("pycuda", "", "pip install 'dlink[trt]' (compiled there: needs a C++ compiler and the CUDA toolkit)"),
        ("tensorrt", "build", "pip install tensorrt (from NVIDIA's own package index, see its installation guide)"),
        ("ours", "", ""),
    ],
)
def test_what_is_missing_is_got_by_the_commands_own_extra(package, command, line):
    assert how_to_get(package, command) == line


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def folder(files, tmp_path):
    """A copy of the files that the commands take."""
    return shutil.copytree(files, tmp_path / "files")


@pytest.fixture(scope="module")
def python_of(tmp_path_factory):
    """A function that gives the Python of an environment with one extra, made once."""
    made = {}

    def python(name):
        extras = [name, *EXTRAS[name].beside] if name else []
        for distribution in (besides := TRIALS[name].besides if name else ()):
            if not is_here(distribution):
                pytest.skip(f"needs {distribution}: pip install 'dlink[test]' on Linux x86-64")
        if name not in made:
            made[name] = environment(tmp_path_factory.mktemp("env"), extras, besides)
        return made[name]

    return python


def is_here(distribution):
    try:
        return bool(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return False


def run(python, folder, line):
    command = [python, "-c", "from dlink.cli.main import dlink; dlink()", *line.split()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("name", WITHOUT_GPU)
def test_an_extra_alone_imports_what_a_program_needs_of_it(name, python_of, tmp_path):
    code = "\n".join(f"import dlink.{module}" for module in EXTRAS[name].modules)
    done = subprocess.run([python_of(name), "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", WITHOUT_GPU)
def test_an_extra_alone_runs_its_first_command(name, python_of, folder):
    trial = TRIALS[name]
    for line in trial.commands:
        done = run(python_of(name), folder, line)
        assert done.returncode == 0, done.stderr
    assert (folder / trial.made).stat().st_size


@pytest.mark.parametrize(("extra", "version"), [("trt", "10.3.0"), ("rtx", "rtx")])
def test_a_plan_opens_where_its_extra_is_alone(extra, version, tmp_path):
    if extra == "rtx" and not is_here("tensorrt-rtx"):
        pytest.skip("needs tensorrt-rtx: pip install 'dlink[test]' on Linux x86-64")
    command = [sys.executable, "-m", "tests.support.plan_alone", extra, version, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("TensorRT")


def test_the_core_alone_has_help_and_the_doctor(python_of, tmp_path):
    assert run(python_of(""), tmp_path, "--help").returncode == 0
    said = json.loads(run(python_of(""), tmp_path, "doctor --json").stdout)
    states = {row["name"]: row["state"] for row in said["rows"]}
    assert {name for name, state in states.items() if state == "found"} == {"Python", "numpy"}
    assert {states[need.name] for need in NEEDS if need.name != "numpy"} == {"missing"}
    assert not any(ability["can"] for ability in said["abilities"])


@pytest.mark.parametrize("step", COMMANDS)
def test_the_core_alone_names_the_extra_of_every_other_command(step, python_of, folder):
    before = set(folder.rglob("*.*"))
    done = run(python_of(""), folder, COMMANDS[step])
    [line] = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    extra = re.fullmatch(r"Error: this needs \w+: pip install 'dlink\[(\w+)\]'", line)
    assert extra, line
    assert step in EXTRAS[extra[1]].commands
    assert set(folder.rglob("*.*")) == before


def test_every_command_is_run_without_its_extra():
    assert set(COMMANDS) == set(STEPS) - ALONE


def test_the_core_alone_says_what_a_file_is(python_of, folder):
    for file, words in (("roads.onnx", "dlinknet34 width 0.25, fp32"), ("roads.plan", "TensorRT 10.3.0")):
        done = run(python_of(""), folder, f"inspect {file}")
        assert (done.returncode, done.stderr) == (0, "")
        assert words in done.stdout


def test_the_compiler_of_plans_is_asked_for_where_it_is_missing(python_of, folder):
    [line] = run(python_of("trt"), folder, "build roads.onnx -o new.plan --target tensorrt-rtx").stderr.splitlines()
    assert line == "Error: this needs tensorrt_rtx: pip install 'dlink[rtx]'"
