"""Options that belong together are one argument, and no function of the commands takes more than a few."""

import ast
import inspect
from dataclasses import fields, is_dataclass

import click
import pytest
from click.testing import CliRunner

from dlink.cli.main import STEPS
from dlink.cli.options import name_of, together
from dlink.cli.step import step_of
from tests.support.environments import ROOT

MOST = 7  # parameters of a function
COMMANDS = {step: step_of(step) for step in STEPS}
GROUPS = {
    f"{step} {group.name}": (step, group)
    for step, command in COMMANDS.items()
    for group in getattr(command.callback, "together", ())
}


@pytest.mark.parametrize("path", sorted((ROOT / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_no_function_takes_more_than_a_few_parameters(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            count = len([*a.posonlyargs, *a.args, *a.kwonlyargs])
            assert count <= MOST, f"{path.name}:{node.lineno} {node.name} takes {count}"


@pytest.mark.parametrize("name", GROUPS)
def test_options_that_belong_together_are_a_frozen_dataclass_that_has_them(name):
    step, group = GROUPS[name]
    kind = group.dataclass
    assert is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert set(group.fields) <= {f.name for f in fields(kind)}
    own = inspect.unwrap(COMMANDS[step].callback)
    annotation = own.__annotations__[group.name]
    assert kind.__name__ == (annotation if isinstance(annotation, str) else annotation.__name__)


def test_the_commands_have_groups():
    assert {step for step, _ in GROUPS.values()} >= {
        "build",
        "calibrate",
        "check",
        "train",
        "segment",
        "score",
        "bench",
    }


@pytest.mark.parametrize("step", STEPS)
def test_a_command_takes_each_of_its_options_and_no_other(step):
    command = COMMANDS[step]
    groups = getattr(command.callback, "together", ())
    grouped = [name_of(option) for group in groups for option in group.options]
    own = inspect.signature(inspect.unwrap(command.callback)).parameters
    alone = [param.name for param in command.params if param.name not in grouped]
    assert sorted([*alone, *(group.name for group in groups)]) == sorted(own)


@pytest.mark.parametrize("step", STEPS)
def test_every_option_is_explained(step):
    for param in COMMANDS[step].params:
        if isinstance(param, click.Option):
            assert param.help, param.name


def made(*arguments):
    """What a group that holds another makes of a command line, on the classes of calibration."""
    found = []
    inner = together(
        "limits", "calib.evaluator:HoldoutLimits", click.option("--max-iou-drop", type=float, default=0.25)
    )
    group = together("how", "calib.calibrate:CalibrationOptions", click.option("--method"), inner)

    @click.command()
    @click.option("--other")
    @group
    def it(other, how):
        found.append((other, how))

    result = CliRunner().invoke(it, arguments)
    assert result.exit_code == 0, result.output
    return found[0]


def test_a_group_may_hold_another():
    other, how = made("--other", "x", "--method", "max", "--max-iou-drop", "0.5")
    assert (other, how.method, how.limits.max_iou_drop) == ("x", "max", 0.5)


def test_what_is_not_given_is_left_to_the_dataclass():
    from dlink.calib.calibrate import CalibrationOptions

    _, how = made()
    assert (how.method, how.limits.max_iou_drop) == (CalibrationOptions().method, 0.25)
