"""Tasks that have commands of their own now: the old spelling says so in a line and goes on working."""

import json
import re
import shutil

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from dlink.cli.build import build
from dlink.cli.check import check
from dlink.cli.main import dlink
from dlink.cli.step import Moved
from dlink.cli.train import train
from dlink.imagery.images import write_image
from dlink.runtime import Spec, open_model
from tests.support.command import call
from tests.support.models import write_pointwise
from tests.support.plans import write

SIDE = 64


@pytest.fixture
def folder(tmp_path):
    """A model, and a tile whose left half is road."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[:, :32, 0] = 150
    (tmp_path / "tiles").mkdir()
    write_image(tmp_path / "tiles" / "1_sat.png", image)
    write_image(tmp_path / "tiles" / "1_mask.png", np.where(image[..., 0] > 0, 255, 0).astype(np.uint8))
    write_pointwise(tmp_path / "m.onnx", Spec(tile=SIDE, threshold=0.95))
    return tmp_path


def both(command, old, new, code=0):
    """The old spelling, as a command and as a step, and the new one: the same on stdout, one line more on stderr."""
    step = call(*new, code=code)
    for result in (CliRunner().invoke(command, list(map(str, old))), call(command.name, *old, code=code)):
        assert (result.exit_code, result.stdout) == (code, step.stdout)
        first, _, rest = result.stderr.partition("\n")
        assert rest == step.stderr
        assert re.fullmatch(
            rf"deprecated: dlink-{command.name} .* has become dlink-{new[0]}.*; dlink-{new[0]} runs now", first
        )
    return first


def test_check_with_tune(folder):
    out = folder / "t.onnx"
    both(
        check,
        [folder / "m.onnx", folder / "tiles", "--tune", "-o", out, "--views", "1", "--json"],
        ["tune", folder / "m.onnx", folder / "tiles", "-o", out, "--views", "1", "--json"],
    )
    with open_model(out) as tuned:
        assert tuned.threshold < 0.9


def test_check_with_layers(folder):
    first = both(
        check,
        ["--layers", folder / "m.onnx", folder / "tiles"],
        ["layers", folder / "m.onnx", folder / "tiles"],
    )
    assert first == "deprecated: dlink-check --layers has become dlink-layers; dlink-layers runs now"


def test_build_that_builds_nothing(folder):
    plan = write(folder)
    for more in ([], ["--json"], ["--triton", folder / "models"]):
        both(build, [plan, *more], ["inspect", plan, *more])
    given = ["--max-tiles", "3", "--views", "4", "--triton", folder / "models"]
    first = both(build, [folder / "m.onnx", *given], ["inspect", folder / "m.onnx", *given])
    assert first.startswith("deprecated: dlink-build without -o has become dlink-inspect")
    assert "max_batch_size: 12" in (folder / "models" / "m" / "config.pbtxt").read_text()
    both(build, [folder / "m.onnx", "--explain"], ["inspect", folder / "m.onnx", "--explain"])


@pytest.mark.parametrize("spelt", [["--int8", "{ranges}"], ["--int8={ranges}"]])
def test_train_with_int8(spelt, folder):
    (folder / "ranges.json").write_text("{}")
    given = ["--init", folder / "m.onnx", "-o", folder / "out.th", "--seed", "2"]  # .th: refused before minutes of work
    old = [folder / "tiles", *(word.format(ranges=folder / "ranges.json") for word in spelt), *given]
    first = both(train, old, ["finetune", folder / "tiles", "--ranges", folder / "ranges.json", *given], code=1)
    assert "and --int8 is --ranges there" in first


def test_train_with_distil(folder):
    (folder / "init.th").write_text("no checkpoint")
    given = ["--init", folder / "init.th", "-o", folder / "out.th", "--crop", "64"]
    both(train, [folder / "tiles", "--distil", *given], ["distil", folder / "tiles", *given], code=1)


@pytest.mark.parametrize("step", ["check", "train", "build"])
def test_what_has_moved_is_not_in_the_help(step):
    said = call(step, "--help").stdout
    for option in ("--tune", "--layers", "--int8", "--distil", "--everything"):
        assert option not in said


@pytest.mark.parametrize(
    ("old", "ignored", "new"),
    [
        ("check {m} {t} --tune --views both --against={m}", "--views, --against", "tune {m} {t}"),
        ("check --layers --threads 2 {m} {t} --limit 1", "--threads, --limit", "layers {m} {t}"),
        ("build {m} --explain --target tensorrt-rtx", "--target", "inspect {m} --explain"),
    ],
    ids=lambda words: words.partition(" ")[0],
)
def test_options_that_the_old_spelling_ignored_are_ignored_with_a_note(old, ignored, new, folder):
    """The values too: none becomes an argument of the new command."""
    old, new = (line.format(m=folder / "m.onnx", t=folder / "tiles").split() for line in (old, new))
    done, step = call(*old), call(*new)
    assert done.stdout == step.stdout
    note = f"note: {ignored}: has no meaning for dlink-{new[0]}, as before, and is ignored"
    assert done.stderr.splitlines()[1] == note


def test_a_training_keeps_what_distil_takes_and_ignores_the_rest(folder):
    (folder / "init.th").write_text("no checkpoint")
    given = ["--loss", "focal", "--init", folder / "init.th", "-o", folder / "o.th"]
    said = call("train", folder / "tiles", "--distil", *given, code=1).stderr.splitlines()
    assert said[1] == "note: --loss: has no meaning for dlink-distil, as before, and is ignored"
    assert "init.th" in said[2]


def test_an_option_that_neither_knows_is_refused_by_the_new_command(folder):
    said = call("check", folder / "m.onnx", folder / "tiles", "--tune", "--nothing", code=2).stderr.splitlines()
    assert said[1] == "Error: No such option '--nothing'; dlink tune --help says what it takes"


def test_a_table_and_json_are_not_printed_into_one_another(folder):
    said = call("inspect", folder / "m.onnx", "--explain", "--json", code=1)
    assert (said.stdout, "--explain and --json: give one of them" in said.stderr) == ("", True)


def test_an_option_is_looked_for_before_two_dashes_alone():
    moved = Moved(to="tune", option="--tune")
    assert moved.arguments(["a", "--tune", "b"]) == ["a", "b"]
    assert moved.arguments(["a", "--", "--tune"]) is None
    assert moved.arguments(["a", "--tuned", "--tune=1"]) is None
    assert Moved(to="tune").arguments(["a"]) is None


def test_inspect_says_what_an_onnx_file_is(folder):
    path = folder / "m.onnx"
    said = call("inspect", path).stdout.splitlines()
    assert said == [
        f"{path}: dlinknet34 width 1, fp32, {path.stat().st_size / 1e6:.1f} MB",
        "tiles of 64 px, BGR, 0.5 m a pixel; road where the probability exceeds 0.95, the mean of 8 views",
        "prepared as pixel * 0.012549 - 1.6",
    ]
    values = json.loads(call("inspect", path, "--json").stdout)
    assert (values["file"]["name"], values["file"]["bytes"]) == ("m.onnx", path.stat().st_size)
    assert (values["spec"]["threshold"], values["spec"]["tile"], values["int8"]) == (0.95, SIDE, None)


def test_inspect_says_what_a_file_draws(folder):
    path = folder / "houses.onnx"
    write_pointwise(path, Spec(tile=SIDE, target="building", threshold=0.25))
    assert "m a pixel; building where the probability exceeds 0.25" in call("inspect", path).stdout


def test_inspect_says_how_an_int8_file_was_made(folder):
    from dlink.runtime.onnx_bytes import write_sealed
    from dlink.runtime.spec import INT8_KEY, ONNX_KEY

    spec = Spec(
        tile=SIDE, precision="int8", int8_method="mse", int8_verdict="masks agree 0.99", checkpoint_sha256="a" * 64
    )
    model = onnx.load(folder / "m.onnx")
    onnx.helper.set_model_props(model, {ONNX_KEY: spec.to_json(), INT8_KEY: json.dumps({"int8_share": 0.973})})
    write_sealed(model.SerializeToString(), folder / "int8.onnx")
    said = call("inspect", folder / "int8.onnx").stdout.splitlines()
    assert said[3:] == [
        f"exported from a checkpoint of SHA-256 {'a' * 64}",
        "97.3% of the multiply-adds in int8, ranges by mse; masks agree 0.99",
    ]


def test_inspect_takes_onnx_files_and_plans_alone(folder):
    (folder / "notes.txt").write_text("words")
    said = call("inspect", folder / "notes.txt", code=1).stderr
    assert said == f"Error: {folder / 'notes.txt'}: expected an ONNX file (.onnx), or a plan (.plan)\n"


def test_a_tuned_copy_is_of_an_onnx_file(folder):
    plan = write(folder)
    said = call("tune", plan, folder / "tiles", "-o", folder / "t.onnx", code=1).stderr
    assert "only an ONNX file can be copied; tune the file that" in said
    shutil.rmtree(folder / "tiles")


def test_dlink_runs_the_old_spelling_as_a_step(folder):
    said = CliRunner().invoke(dlink, ["check", str(folder / "m.onnx"), str(folder / "tiles"), "--tune"])
    assert said.exit_code == 0
    assert "nothing is written without --output MODEL.onnx" in said.stdout
