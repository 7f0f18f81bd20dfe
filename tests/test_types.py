"""The types of an installed copy, as a user's strict checkers find them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dlink
from tests.support.environments import FOLDERS, build_wheel, environment

PROGRAM = Path(__file__).parent / "support" / "users_program.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("wheel"), "--no-build-isolation", "--no-index")


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Of an environment with the core alone, from the wheel."""
    return environment(tmp_path_factory.mktemp("env"), [], ["typing-extensions"], wheel)


@pytest.fixture
def check(python, tmp_path):
    """A function that has a checker read a program as the environment's owner would."""

    def run(checker, text):
        (tmp_path / "program.py").write_text(text)
        (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        command = {
            "mypy": ["mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache"],
            "pyright": ["basedpyright", "--pythonpath", python, "--project", tmp_path / "pyrightconfig.json"],
        }[checker]
        return subprocess.run(
            [sys.executable, "-m", *command, "program.py"], cwd=tmp_path, capture_output=True, text=True
        )

    return run


def test_every_package_is_marked_as_typed(wheel):
    assert {f"{package.replace('.', '/')}/py.typed" for package in FOLDERS} <= set(zipfile.ZipFile(wheel).namelist())


def test_the_version_is_the_wheels(wheel):
    assert wheel.name == f"dlink-{dlink.__version__}-py3-none-any.whl"


def test_a_wheel_has_the_version_without_importing_anything(python, tmp_path):
    code = "import dlink, sys; print(dlink.__version__, [m for m in sys.modules if m.startswith(('dlink', 'numpy'))])"
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{dlink.__version__} ['dlink']\n"


@pytest.mark.parametrize(("checker", "verdict"), [("mypy", "no issues found"), ("pyright", "0 errors, 0 warnings")])
def test_a_strict_checker_finds_the_types(check, checker, verdict):
    done = check(checker, PROGRAM.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdict in done.stdout


@pytest.mark.parametrize(
    ("checker", "words"), [("mypy", 'No overload variant of "submit"'), ("pyright", "Literal['one']")]
)
def test_a_strict_checker_finds_a_wrong_type(check, checker, words):
    done = check(checker, PROGRAM.read_text().replace("views=1", 'views="one"'))
    assert done.returncode == 1
    assert "program.py:20:" in done.stdout
    assert words in done.stdout
