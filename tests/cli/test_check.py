import json

import numpy as np
import pytest
from click.testing import CliRunner

from dlink.cli.check import check
from dlink.cli.tune import tune as tune_command
from dlink.imagery.images import write_image
from dlink.runtime import Spec
from tests.support.models import write_pointwise

SIDE = 64


@pytest.fixture
def folder(tmp_path):
    """Two labelled tiles, the left half road in a model of threshold 0.5, the left quarter in one of 0.9."""
    for id in ("1", "2"):
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[:, :32, 0] = 150
        image[:, :16, 0] = 250
        write_image(tmp_path / f"{id}_sat.png", image)
        write_image(tmp_path / f"{id}_mask.png", np.where(image[..., 0] > 0, 255, 0).astype(np.uint8))
    return tmp_path


@pytest.fixture
def run(folder):
    """Check a model of one threshold against one of another."""

    def run(*options, candidate=0.5, reference=0.5, precision="fp32"):
        model = folder / "model.onnx"
        write_pointwise(model, Spec(tile=SIDE, threshold=candidate, precision=precision, checkpoint_sha256="a" * 64))
        against = folder / "against.onnx"
        write_pointwise(against, Spec(tile=SIDE, threshold=reference, checkpoint_sha256="b" * 64))
        return CliRunner().invoke(check, [*map(str, [model, folder, "--against", against]), *options])

    return run


def test_the_same_roads_exit_with_0(run):
    result = run()
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "same roads (agreement at least 0.99, IoU drop at most 0.005)"


def test_other_roads_exit_with_1_and_say_why_under_the_table(run):
    result = run(candidate=0.9)
    assert result.exit_code == 1
    assert "NOT the same roads: the masks agree to 0.5 with 8 views, less than 0.99" in result.stdout
    assert "does not draw the roads of" in result.stderr


def test_a_model_of_buildings_is_compared_by_that_word_and_not_with_roads(folder):
    model, against, roads = (folder / f"{name}.onnx" for name in ("model", "against", "roads"))
    for path, threshold in ((model, 0.5), (against, 0.9)):
        write_pointwise(path, Spec(tile=SIDE, threshold=threshold, target="building"))
    write_pointwise(roads, Spec(tile=SIDE))
    report = folder / "report.html"
    done = CliRunner().invoke(check, [*map(str, [model, folder, "--against", against, "--report", report])])
    assert done.exit_code == 1
    assert "NOT the same buildings: the masks agree to 0.5" in done.stdout
    assert "does not draw the buildings of" in done.stderr
    assert "Not the same buildings" in report.read_text()
    done = CliRunner().invoke(check, [*map(str, [model, folder, "--against", roads])])
    assert done.exit_code == 1
    assert f"{model} draws buildings and {roads} roads; compare two of a kind" in done.stderr


def test_the_table_has_a_row_for_every_number_of_views(run):
    rows = [line.split() for line in run(candidate=0.9).stdout.splitlines()]
    numbers = ["0.5000", "0.5000", "(1)", "0.5000", "1.0000", "0.5000", "0.5000", "1.0000", "0.5000", "0"]
    assert ["8", *numbers] in rows
    assert ["1", *numbers] in rows


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--min-agreement", "0.5", "--max-iou-drop", "0.5"], 0),
        (["--min-agreement", "0.501", "--max-iou-drop", "0.5"], 1),
        (["--min-agreement", "0.5", "--max-iou-drop", "0.499"], 1),
    ],
)
def test_the_exit_code_follows_the_limits(run, options, code):
    assert run(*options, candidate=0.9).exit_code == code


def test_json_is_the_whole_result(run):
    values = json.loads(run("--json").stdout)
    assert (values["same"], values["why"]) == (True, [])
    assert values["limits"] == {"max_iou_drop": 0.005, "min_agreement": 0.99}
    assert [s["views"] for s in values["agreement"]["settings"]] == [8, 1]


def test_json_is_printed_where_the_check_fails_too(run):
    result = run("--json", candidate=0.9)
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    assert values["same"] is False
    assert len(values["why"]) == 4  # agreement and drop, with 8 views and with 1


def test_an_int8_file_is_held_to_less(run):
    assert json.loads(run("--json", precision="int8").stdout)["limits"]["min_agreement"] == 0.97


def test_one_number_of_views_can_be_asked_for(run):
    values = json.loads(run("--json", "--views", "1").stdout)
    assert [s["views"] for s in values["agreement"]["settings"]] == [1]


def test_limit_takes_the_first_tiles(run):
    assert json.loads(run("--json", "--limit", "1").stdout)["agreement"]["tiles"] == 1


def test_without_labels_the_masks_alone_are_compared(run, folder):
    for label in folder.glob("*_mask.png"):
        label.unlink()
    result = run()
    assert result.exit_code == 0
    assert "2 tiles, no labels, so only the masks' agreement" in result.stdout
    assert result.stdout.splitlines()[-1] == "same roads (agreement at least 0.99)"


def test_no_road_anywhere_is_no_agreement(run):
    result = run(candidate=0.99, reference=0.99)
    assert result.exit_code == 1
    assert "no road in either mask on 2 tiles" in result.stdout


def test_labels_without_road_are_no_proof(run, folder):
    for label in folder.glob("*_mask.png"):
        write_image(label, np.zeros((SIDE, SIDE), np.uint8))
    result = run()
    assert result.exit_code == 1
    assert "no road in any of 2 labels" in result.stdout


def test_an_unreadable_tile_is_named_and_nothing_passes(run, folder):
    (folder / "2_sat.png").write_bytes(b"no picture")
    result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "2_sat.png" in result.stderr


def test_a_label_of_another_size_is_named(run, folder):
    write_image(folder / "2_mask.png", np.zeros((8, 8), np.uint8))
    result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "2_mask.png: 8 x 8 px" in result.stderr


def test_a_reference_with_other_weights_is_noted(run):
    assert "against.onnx is not the checkpoint that" in run().stderr


@pytest.fixture
def checkpoint(folder):
    """A narrow network of random weights."""
    import torch

    from dlink.nets.checkpoint import write_checkpoint
    from dlink.nets.zoo import build

    torch.manual_seed(0)
    write_checkpoint(build("dlinknet34", 0.125), folder / "net.th")
    return folder / "net.th"


def export(checkpoint, model):
    """Write the ONNX file of a checkpoint, with a threshold that makes about half of an empty tile road."""
    import torch

    from dlink.export.onnx_file import write_onnx
    from dlink.nets.checkpoint import read_checkpoint
    from dlink.nets.folding import fold_norms
    from tests.export.test_export import in_a_gap

    read = read_checkpoint(checkpoint)
    with torch.inference_mode():
        threshold = in_a_gap(read.net(torch.zeros(1, 3, SIDE, SIDE)).numpy())
    spec = Spec(tile=SIDE, width=0.125, threshold=threshold, checkpoint_sha256=read.sha256)
    write_onnx(fold_norms(read.net), spec, model)


def test_a_checkpoint_is_run_by_pytorch_and_draws_the_roads_of_its_export(folder, checkpoint):
    model = folder / "model.onnx"
    export(checkpoint, model)
    result = CliRunner().invoke(check, [*map(str, [model, folder, "--against", checkpoint]), "--threads", "1"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1].startswith("same roads")


def test_a_checkpoint_that_the_model_is_not_from_is_noted_and_fails(folder, checkpoint):
    model = write_pointwise(folder / "model.onnx", Spec(tile=SIDE, checkpoint_sha256="a" * 64))
    result = CliRunner().invoke(check, [*map(str, [model, folder, "--against", checkpoint])])
    assert result.exit_code == 1
    assert f"note: {checkpoint} is not the checkpoint that {model} was exported from" in result.stderr


@pytest.fixture
def two(folder, checkpoint):
    """A checkpoint of two networks, `model` and `ema`, each with a softmax over two classes."""
    import torch

    from dlink.nets.zoo import build

    state = {k.removeprefix("module."): v for k, v in torch.load(checkpoint, weights_only=True).items()}
    torch.manual_seed(1)
    other = build("dlinknet34", 0.125).state_dict()
    last = ("finalconv3.weight", "finalconv3.bias")
    softmax = [s | {k: torch.cat([torch.zeros_like(s[k]), s[k]]) for k in last} for s in (state, other)]
    torch.save({"model": softmax[0], "ema": softmax[1]}, folder / "two.pth")
    return folder / "two.pth"


def exported(two, model, *options):
    from dlink.cli.export import export

    result = CliRunner().invoke(export, [*map(str, [two, model, "--tile", SIDE, *options])])
    assert result.exit_code == 0, result.output


def checked(model, folder, two, *options):
    return CliRunner().invoke(check, [*map(str, [model, folder, "--against", two, "--views", "1", *options])])


def largest(result):
    """The largest difference of a probability."""
    return json.loads(result.stdout)["agreement"]["settings"][0]["max_difference"]


@pytest.mark.parametrize("took", [["--key", "ema"], ["--class", "0"], ["--key", "ema", "--class", "0"], []], ids=str)
def test_the_reference_is_what_the_export_took_of_its_checkpoint(folder, two, took):
    model = folder / "model.onnx"
    exported(two, model, *took)
    result = checked(model, folder, two, "--json")
    assert largest(result) < 1e-5
    assert "was exported with" not in result.stderr


def test_another_network_of_the_checkpoint_is_compared_if_it_is_asked_for_and_that_is_said(folder, two):
    model = folder / "model.onnx"
    exported(two, model, "--key", "ema")
    result = checked(model, folder, two, "--against-key", "model", "--json", "--min-agreement", "0")
    assert f"note: --against-key model: {model} was exported with --key ema" in result.stderr
    assert largest(result) > 1e-3
    other = checked(model, folder, two, "--against-key", "best")
    assert "two.pth: --against-key best: the checkpoint has no such key; there are model, ema" in other.stderr


def test_options_of_a_checkpoint_are_refused_for_an_onnx_file(folder, two):
    model = write_pointwise(folder / "model.onnx", Spec(tile=SIDE))
    result = checked(model, folder, model, "--against-key", "ema")
    assert "--against-arch, --against-key and --against-class are for checkpoints; leave them out" in result.stderr


def limits(result):
    return json.loads(result.stdout)["limits"]


def test_gates_are_given_by_name(run):
    values = limits(run("--json", "--gate", "iou=0.25,agreement=0.5", "--gate", "apls=0.01,broken=2"))
    assert values == {"max_iou_drop": 0.25, "min_agreement": 0.5, "max_apls_drop": 0.01, "max_broken_rise": 2.0}


def test_the_old_options_are_the_same_gates(run):
    old = limits(run("--json", "--max-iou-drop", "0.25", "--min-agreement", "0.5"))
    assert old == limits(run("--json", "--gate", "iou=0.25,agreement=0.5"))


def test_every_gate_has_a_row_with_its_interval(run):
    rows = [line.split() for line in run("--gate", "apls=0.01,broken=2", "--views", "1").stdout.splitlines()]
    assert ["agreement", "1", "1.0000", "1.0000", "to", "1.0000", "at", "least", "0.99"] in rows
    assert {row[0] for row in rows if row[1:2] == ["1"]} >= {"agreement", "iou", "apls", "broken"}


@pytest.fixture
def roads(folder):
    """A third tile, of one road of 128 m that is doubtful in its middle: broken at a threshold of 0.9, not at 0.5."""
    image = np.zeros((SIDE, 4 * SIDE, 3), np.uint8)
    image[26:38, :, 0] = 250
    image[26:38, 120:136, 0] = 150
    write_image(folder / "3_sat.png", image)
    write_image(folder / "3_mask.png", np.where(image[..., 0] > 0, 255, 0).astype(np.uint8))
    return folder


def test_a_broken_road_misses_the_gates_on_graphs(run, roads):
    gates = "iou=1,agreement=0,apls=0.2,broken=1"
    result = run("--json", "--views", "1", "--gate", gates, candidate=0.9)
    [a, b] = json.loads(result.stdout)["why"]
    assert result.exit_code == 1
    assert a.startswith("APLS drops by 0.")
    assert b.startswith("broken links a km rise by ")
    assert run("--views", "1", "--gate", gates).exit_code == 0


def test_metres_a_pixel_can_be_given(run, roads):
    def km(*options):
        settings = json.loads(run("--json", "--views", "1", "--gate", "broken=1", *options).stdout)["agreement"][
            "settings"
        ]
        return settings[0]["roads"]["reference"]["km"]

    assert km("--gsd", "1") == pytest.approx(2 * km())  # the model's is 0.5


def test_what_few_tiles_cannot_rule_out_is_in_the_verdict(run, folder):
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[..., 0] = 250
    for id in ("3", "4", "5"):
        write_image(folder / f"{id}_sat.png", image)
        write_image(folder / f"{id}_mask.png", image[..., 0])
    last = run("--views", "1", "--gate", "iou=0.2,agreement=0.8", candidate=0.9).stdout.splitlines()[-1]
    assert last.startswith(
        "same roads (agreement at least 0.8, IoU drop at most 0.2); held, but 5 tiles cannot rule out"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gate", "iuo=0.1"], "there is no gate 'iuo'; there are agreement, iou, apls, broken"),
        (["--gate", "iou=low"], "iou needs a number"),
        (["--gate", "iou=0.1", "--max-iou-drop", "0.1"], "iou is given twice"),
        (["--report", "page.pdf"], "page.pdf: a report's name must end in .html"),
        (["--report", "nowhere/page.html"], "nowhere/page.html: there is no folder nowhere"),
    ],
)
def test_options_that_make_no_sense_are_one_line(run, options, said):
    result = run(*options)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert said in result.stderr


@pytest.mark.parametrize("gate", ["iou", "apls", "broken"])
def test_a_gate_that_needs_labels_says_so(run, folder, gate):
    for label in folder.glob("*_mask.png"):
        label.unlink()
    result = run("--gate", f"{gate}=0.5")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"--gate {gate}: needs labels, and none of 2 tiles of {folder} has one" in result.stderr


def test_a_reference_must_be_named(folder):
    model = write_pointwise(folder / "model.onnx", Spec(tile=SIDE))
    result = CliRunner().invoke(check, [str(model), str(folder)])
    assert result.exit_code == 1
    assert "--against is missing" in result.stderr


@pytest.mark.parametrize("candidate", [0.5, 0.9])
def test_the_report_is_written_whatever_the_verdict(run, folder, candidate):
    report = folder / "report.html"
    result = run("--report", str(report), candidate=candidate)
    assert f"{report}: the report" in result.stderr
    text = report.read_text()
    assert ("Not the same roads" in text) == (candidate == 0.9)
    assert "model.onnx" in text
    assert "APLS, mean of tiles" in text


def test_a_report_that_cannot_be_written_leaves_nothing(run, folder):
    (folder / "report.html").mkdir()
    result = run("--report", str(folder / "report.html"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "report.html: a folder" in result.stderr
    assert not list(folder.glob(".report*"))


@pytest.fixture
def tune(folder):
    def tune(*options):
        model = write_pointwise(folder / "model.onnx", Spec(tile=SIDE, threshold=0.95))
        return CliRunner().invoke(tune_command, [str(model), str(folder), *map(str, options)])

    return tune


def test_tuning_finds_the_threshold_and_writes_a_copy(tune, folder):
    from dlink.runtime import open_model

    out = folder / "tuned.onnx"
    result = tune("-o", out)
    assert result.exit_code == 0
    assert "pooled IoU 1.0000" in result.stdout
    assert "a threshold tuned on these tiles must be checked on others" in result.stdout
    with open_model(out) as tuned:
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[:, :32, 0] = 150
        assert (tuned.mask(image) > 0).sum() == SIDE * 32


def test_tuning_without_an_output_writes_nothing(tune, folder):
    before = {*folder.iterdir(), folder / "model.onnx"}
    result = tune()
    assert "nothing is written without --output MODEL.onnx" in result.stdout
    assert set(folder.iterdir()) == before


def test_tuning_prints_json(tune):
    values = json.loads(tune("--json", "--views", "1").stdout)
    assert (values["views"], values["tiles"], values["before"], values["iou"]["value"]) == (1, 2, 0.95, 1.0)
    assert values["threshold"]["low"] == values["threshold"]["high"] == values["threshold"]["value"]


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("tuned.plan", "the name must end in .onnx"),
        ("nowhere/tuned.onnx", "there is no folder"),
        ("model.onnx", "the model itself; name another file"),
    ],
)
def test_an_output_that_will_not_do_is_refused(tune, folder, out, said):
    result = tune("-o", folder / out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


def test_tuning_needs_labels(tune, folder):
    for label in folder.glob("*_mask.png"):
        label.unlink()
    result = tune()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no label among 2 tiles" in result.stderr
