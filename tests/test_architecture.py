"""The architecture, so that it stays."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SLOW

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "trt_runtime": {"trt_runtime"},
    "scenes": {"scenes", "trt_runtime"},
    "nets": {"nets", "trt_runtime"},
    "accuracy": {"accuracy", "trt_runtime"},
    "export": {"export", "nets", "trt_runtime"},
    "training": {"training", "accuracy", "calib", "nets", "trt_runtime"},
    "calib": {"calib", "accuracy", "trt_runtime"},
    "engine": {"engine", "trt_runtime"},
    "bench": {"bench", "accuracy", "calib", "engine", "export", "nets", "scenes", "training", "trt_runtime"},
}
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "cv2", "rasterio", "safetensors", "scipy", "shapely", "skimage"}
HEAVY |= {"polygraphy", "tensorrt", "tensorrt_rtx", "pycuda", "cryptography"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} is a relative import"
            yield from ((node.lineno, f"{node.module}.{a.name}") for a in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_at_the_runtime(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for line, name in imported(path):
            if name.startswith("dlink."):
                assert name.split(".")[1] in MAY_IMPORT[folder], f"{path.name}:{line} imports {name}"


@pytest.mark.parametrize(
    "code",
    [
        "import dlink",
        "import dlink.trt_runtime",
        "from dlink.cli.main import dlink; dlink(['--help'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_at_import(code):
    code += f"\nimport sys; print(sorted(set(sys.modules) & {HEAVY}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


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
    assert len(lines) == 13
    assert all(line.endswith("[]") for line in lines), lines


@pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
def test_engines_with_telemetry_are_imported_where_it_is_switched_off_alone(library):
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in MAY_IMPORT
        for path in (ROOT / folder).rglob("*.py")
        for _, name in imported(path)
        if name.split(".")[0] == library and "peers" not in path.parts
    }
    assert found == {f"trt_runtime/quiet_{library}.py"}


def test_the_slow_modules_are_there():
    assert {path.stem for path in ROOT.glob("tests/**/test_*.py")} >= SLOW
