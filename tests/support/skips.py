"""What was skipped: a line for each need when the tests end, and in CI an error for what should have run there.

A reason reads "needs X: what would run it". CI is where the environment variable CI is set.
"""

import os
from collections import defaultdict

import pytest

MAY_LACK = ("needs an NVIDIA GPU", "needs ../shared", "needs a processor with")  # in CI
HINTS = 3  # that a line shows


def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput"):  # one of pytest-xdist's; the reports are where it was started
        return
    if session.exitstatus == pytest.ExitCode.OK and unwanted(reasons(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    found = reasons(config)
    for line in lines(found):
        terminalreporter.write_line(line, yellow=True)
    for need in unwanted(found):
        terminalreporter.write_line(f"ERROR: in CI nothing is skipped that {need!r}", red=True)


def reasons(config):
    """Why tests, or modules of them, were skipped."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return [report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", [])]


def lines(found):
    """One for each need: how many tests, and what would run them."""
    hints = defaultdict(list)
    for need, _, hint in (reason.partition(": ") for reason in found):
        hints[need].append(hint)
    for need, each in sorted(hints.items()):
        several = sorted(set(each))
        words = "; ".join(several[:HINTS]) + ("; ..." if len(several) > HINTS else "")
        yield f"skipped {len(each)}: {need}" + (f": {words}" if words else "")


def unwanted(found):
    """What CI must not lack."""
    if not os.environ.get("CI"):
        return []
    return sorted({need for reason in found if not (need := reason.partition(": ")[0]).startswith(MAY_LACK)})
