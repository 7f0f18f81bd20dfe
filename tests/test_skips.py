"""The end of a test run: what was skipped is said, and in CI not let pass."""

import subprocess
import sys

import pytest

from tests.support.environments import ROOT

SKIPPING = """
import pytest

@pytest.mark.parametrize("n", range(3))
def test_of_plans(n):
    pytest.skip("needs an NVIDIA GPU: no driver")

def test_that_passes():
    pass
"""
MODULE = 'import pytest\npytest.skip("needs a browser: apt-get install chromium", allow_module_level=True)'


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs tests of these texts."""

    def ran(*texts, options=(), **environment):
        for i, text in enumerate(texts):
            (tmp_path / f"test_{i}.py").write_text(text)
        monkeypatch.delenv("CI", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        command = [sys.executable, "-m", "pytest", "-p", "tests.support.skips", "-p", "no:cacheprovider", *options]
        return subprocess.run([*command, tmp_path], cwd=tmp_path, capture_output=True, text=True)

    return ran


def test_each_need_is_a_line(run):
    done = run(SKIPPING, MODULE)
    assert done.returncode == 0, done.stdout
    said = [line for line in done.stdout.splitlines() if line.startswith("skipped")]
    assert said == ["skipped 1: needs a browser: apt-get install chromium", "skipped 3: needs an NVIDIA GPU: no driver"]


@pytest.mark.parametrize("options", [[], ["--numprocesses", "2"]], ids=["one process", "two processes"])
def test_ci_fails_where_something_is_skipped_that_it_could_run(run, options):
    done = run(SKIPPING, MODULE, options=options, CI="true")
    assert done.returncode == 1
    assert "ERROR: in CI nothing is skipped that 'needs a browser'" in done.stdout
    assert "NVIDIA" not in done.stdout.partition("ERROR: ")[2]


def test_ci_may_lack_a_gpu(run):
    assert run(SKIPPING, CI="true").returncode == 0


def test_a_failure_stays_one(run):
    assert run("def test_it():\n    assert False", MODULE).returncode == 1
