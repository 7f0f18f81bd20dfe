"""The architecture, so that it stays: which folder needs which libraries, who imports whom, nothing heavy."""

import ast
import re
import subprocess
import sys

import pytest

import dlink
from tests.conftest import SLOW
from tests.support.environments import FOLDERS, ROOT

LIBRARIES = {  # of each folder, NumPy apart: one set of heavy ones, or none
    "runtime": set(),
    "openvino_runtime": {"openvino"},
    "trt_runtime": {"cryptography", "pycuda"},  # TensorRT is imported by the name that a manifest has
    "imagery": {"cv2", "pyogrio", "rasterio", "shapely"},
    "onnx_graph": {"onnx", "onnxruntime"},
    "doctor": set(),
    "scenes": {"cv2"},
    "nets": {"safetensors", "torch"},
    "accuracy": {"cv2", "rasterio", "scipy", "shapely", "skimage"},
    "maps": {
        "distributed",
        "osmium",
        "pyogrio",
        "rasterio",
        "ray",
        "scipy",
        "shapely",
    },  # a cluster is one or the other
    "live": {"av", "cv2", "pymavlink", "rasterio"},
    "export": {"onnx", "torch"},
    "calib": {"onnx"},
    "engine": {"onnx", "polygraphy"},
    "training": {"cv2", "onnx", "osmium", "osmnx", "rasterio", "requests", "torch"},
    "bench": {"click", "cv2", "pycuda", "rasterio", "tensorrt_rtx", "torch"},
    "cli": {"click", "rasterio", "torch"},
}
MAY_IMPORT = {  # of the other folders
    "runtime": set(),
    "openvino_runtime": {"runtime"},
    "trt_runtime": {"runtime"},
    "imagery": {"runtime"},
    "onnx_graph": {"runtime"},
    "doctor": {"runtime", "trt_runtime"},
    "scenes": {"runtime"},
    "nets": {"runtime"},
    "accuracy": {"imagery", "runtime"},
    "maps": {"imagery", "runtime"},
    "live": {"imagery", "runtime"},
    "export": {"nets", "onnx_graph", "runtime"},
    "calib": {"accuracy", "imagery", "onnx_graph", "openvino_runtime", "runtime"},
    "engine": {"onnx_graph", "openvino_runtime", "runtime", "trt_runtime"},
    "training": {"accuracy", "calib", "imagery", "nets", "onnx_graph", "runtime"},
}
MAY_IMPORT["bench"] = set(MAY_IMPORT)
MAY_IMPORT["cli"] = set(MAY_IMPORT)
HEAVY = set().union(*LIBRARIES.values()) - {"click"} | {"tensorrt", "tensorrt_rtx"}
SECONDS = 0.15  # that importing the runtime may take
BY_A_CALL = ("import_module", "__import__")
CHOSEN = "(a name that is chosen when it runs)"


def modules(folder="*"):
    """Each module of the package: its dotted name and its file."""
    for name, source in FOLDERS.items():
        for path in (ROOT / source).rglob("*.py"):
            if source in (folder, "package") or folder == "*":
                inside = path.relative_to(ROOT / source).with_suffix("").parts
                if inside[0] != "peers":  # scripts that run in environments of their own
                    yield ".".join((name, *inside)).removesuffix(".__init__"), path


NAMES = {name for name, _ in modules()}


def imported(path):
    """Every import of a file, wherever it stands and however it is made: its line and the full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in BY_A_CALL:
            assert node.args, f"{path.name}:{node.lineno} imports by a keyword"
            yield node.lineno, str(node.args[0].value) if isinstance(node.args[0], ast.Constant) else CHOSEN
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} is a relative import"
            yield from ((node.lineno, f"{node.module}.{a.name}") for a in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names)


def test_every_folder_has_its_rules():
    folders = {name.partition(".")[2] for name in FOLDERS} - {""}
    assert folders == LIBRARIES.keys() == MAY_IMPORT.keys()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_those_below_it_alone(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for line, name in imported(path):
            assert name != "dlink", f"{path.name}:{line}: import what is needed by its full name"
            if name.startswith("dlink."):
                assert name.split(".")[1] in MAY_IMPORT[folder] | {folder}, f"{path.name}:{line} imports {name}"


@pytest.mark.parametrize("folder", LIBRARIES)
def test_a_folder_has_one_set_of_libraries(folder):
    ours = {"dlink", "numpy", CHOSEN, *sys.stdlib_module_names}
    found = {name.split(".")[0] for _, path in modules(folder) for _, name in imported(path)} - ours
    assert found == LIBRARIES[folder]


def test_a_module_is_chosen_when_the_program_runs_in_these_places_alone():
    found = {path.relative_to(ROOT).as_posix() for _, path in modules() for _, name in imported(path) if name == CHOSEN}
    assert found == {
        "cli/options.py",  # the dataclass of a group of options, when the command runs
        "cli/step.py",  # a step, when it is asked for
        "engine/versions.py",  # TensorRT or TensorRT-RTX
        "runtime/backend.py",  # the engine for a model file
        "trt_runtime/tensorrt_engine.py",  # TensorRT or TensorRT-RTX, by the manifest
    }


def test_nothing_is_imported_past_the_package():
    """A bare `import export` would make a second copy of every class."""
    for path in [*ROOT.glob("tests/**/*.py"), *(path for _, path in modules())]:
        for line, name in imported(path):
            assert name.split(".")[0] not in FOLDERS.values(), f"{path.name}:{line} imports {name}"


def test_no_files_import_each_other():
    """Also where an import stands in a function, or is for types alone."""
    below = {name: set() for name in NAMES}
    for name, path in modules():
        for _, other in imported(path):
            below[name] |= {other if other in NAMES else other.rpartition(".")[0]} & NAMES - {name}
    while leaves := {name for name, others in below.items() if not others}:
        below = {name: others - leaves for name, others in below.items() if name not in leaves}
    assert below == {}


def test_every_folder_is_on_the_maps():
    said = {
        "import dlink": re.findall(r"^dlink\.(\w+) ", dlink.__doc__, re.MULTILINE),
        "DESIGN.md": re.findall(r"^    (\w+)/ ", (ROOT / "DESIGN.md").read_text(), re.MULTILINE),
    }
    for where, folders in said.items():
        assert sorted(set(folders) - {"package", "docs", "examples", "tests"}) == sorted(MAY_IMPORT), where


@pytest.mark.parametrize(
    "code",
    [
        "import dlink",
        "import dlink.runtime",
        "import dlink.trt_runtime",
        "from dlink.cli.main import dlink; dlink(['--help'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_at_import(code):
    code += f"\nimport sys; print(sorted(set(sys.modules) & {HEAVY}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_runtime_is_imported_in_a_moment():
    """Beyond NumPy: the least of five, for other work of the machine adds to each."""
    code = "import time, numpy; start = time.process_time(); import dlink.runtime; print(time.process_time() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    assert min(float(run.stdout) for run in runs) < SECONDS


def test_the_old_names_are_the_same_objects():
    from dlink import runtime, trt_runtime

    assert {name: getattr(trt_runtime, name) for name in trt_runtime.__all__} == {
        name: getattr(runtime, name) for name in runtime.__all__
    }


def test_every_command_has_help_without_anything_heavy():
    code = f"""
import sys
from click.testing import CliRunner
from dlink.cli.main import STEPS, dlink
for step in STEPS:
    result = CliRunner().invoke(dlink, [step, "--help"])
    assert result.exit_code == 0, result.output
    print(step, sorted(set(sys.modules) & {HEAVY}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == 25
    assert all(line.endswith("[]") for line in lines), lines


@pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
def test_engines_with_telemetry_are_imported_where_it_is_switched_off_alone(library):
    found = {path.stem for _, path in modules() for _, name in imported(path) if name.split(".")[0] == library}
    assert found == {f"quiet_{library}"}


def test_the_slow_modules_are_there():
    assert {path.stem for path in ROOT.glob("tests/**/test_*.py")} >= SLOW
