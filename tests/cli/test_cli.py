"""The commands from outside: one line for what the user can mend, and nothing half-written."""

import subprocess
import sys
from pathlib import Path

import click
import onnx
import pytest
import torch
from click.testing import CliRunner

from dlink.cli.export import export
from dlink.cli.main import FLOW, STEPS, dlink
from dlink.cli.scenes import scenes
from dlink.cli.step import Step, progress
from dlink.cli.train import train
from dlink.imagery.images import find_tiles
from dlink.nets.embedded import EMBEDDED
from dlink.nets.zoo import build
from dlink.openvino_runtime.openvino_backend import read
from dlink.runtime import BadInput, open_model
from dlink.scenes import with_roads

BIN = Path(sys.executable).parent


def test_every_step_is_also_a_command_of_its_own():
    for step in STEPS:
        result = subprocess.run([BIN / f"dlink-{step}", "--help"], capture_output=True, text=True, check=True)
        assert "Usage" in result.stdout


def test_dlink_lists_the_steps_in_the_order_of_the_work_in_groups():
    said = CliRunner().invoke(dlink, ["--help"]).output
    after = said.partition("Options:")[2].splitlines()
    assert [line.split()[0] for line in after if line[:2] == "  " and line.split()[0] in STEPS] == list(STEPS)
    assert [line for line in after if line.endswith(":")] == [f"{title}:" for title in FLOW]
    assert "..." not in said.partition("Options:")[2]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["check"], "MODEL is missing; usage: dlink check [OPTIONS] MODEL TILES"),
        (["train", "."], "--output is missing (The checkpoint to write (.th)); usage: dlink train [OPTIONS] TILES"),
        (["check", "no.onnx", "."], "MODEL: File 'no.onnx' does not exist; dlink check --help says what it takes"),
        (["score", "--workers", "0"], "--workers: 0 is not in the range x>=1; dlink score --help says what it takes"),
        (["chek"], "No such command 'chek'; dlink --help says what it takes"),
        (["--foo"], "No such option '--foo'; dlink --help says what it takes"),
        (["doctor", "--foo"], "No such option '--foo'; dlink doctor --help says what it takes"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(arguments, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(dlink, arguments)
    said = result.stderr.replace(": --foo", " '--foo'")  # click's words before 8.4
    assert (result.exit_code, result.stdout, said) == (2, "", f"Error: {line}\n")


def test_a_command_of_its_own_speaks_of_itself():
    result = CliRunner().invoke(train, [])
    assert (result.exit_code, result.stderr) == (2, "Error: TILES is missing; usage: train [OPTIONS] TILES\n")


def command(body):
    @click.command(cls=Step)
    def it():
        body()

    return CliRunner().invoke(it)


def raising(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BadInput("x.png: two\nlines"), "Error: x.png: two lines"),
        (FileNotFoundError(2, "No such file or directory", "a.th"), "Error: a.th: No such file or directory"),
        (MemoryError("too big"), "Error: not enough memory: too big"),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), "Error: this needs cv2: pip install 'dlink[cpu]'"),
        (ModuleNotFoundError("x", name="rasterio.io"), "Error: this needs rasterio: pip install 'dlink[geo]'"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_1(error, line):
    result = command(raising(error))
    assert (result.exit_code, result.output) == (1, line + "\n")


@pytest.mark.parametrize("error", [KeyError("bug"), ModuleNotFoundError("x", name="ours")])
def test_a_bug_keeps_its_traceback(error):
    assert command(raising(error)).exception is error


def test_short_work_shows_no_progress(capsys):
    show = progress("work")
    show(1, 2, "")
    show(2, 2, "")
    assert capsys.readouterr().err == ""


def test_what_will_be_silent_for_long_is_said_at_once(capsys):
    show = progress("work")
    show(0, 0, "reading 9 x 9 px", at_once=True)
    assert capsys.readouterr().err == "work reading 9 x 9 px 0 s\n"


def test_the_time_left_counts_from_where_the_count_began(capsys, monkeypatch):
    times = iter([0.0, 100.0, 110.0, 140.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    show = progress("work")
    show(0, 0, "reading", at_once=True)
    show(1, 3, "windows")
    show(2, 3, "windows")
    assert capsys.readouterr().err.splitlines() == ["work reading 100 s", "work 2/3 windows 140 s, 20 s left"]


def test_export_writes_a_file_that_opens(tmp_path):
    path = tmp_path / "roads.onnx"
    result = CliRunner().invoke(
        export, [str(EMBEDDED), str(path), "--tile", "128", "--precision", "fp16", "--threshold", "0.4", "--gsd", "0.3"]
    )
    assert result.exit_code == 0, result.output
    spec = read(path)[1]
    assert (spec.tile, spec.precision, spec.threshold, spec.gsd_m, spec.width) == (128, "fp16", 0.4, 0.3, 0.25)
    assert "masks agree at IoU" in result.stdout


def test_export_takes_the_network_that_the_key_names_and_says_so_once(tmp_path):
    plain = torch.load(EMBEDDED, weights_only=True)
    other = {k: -v if k.endswith("finalconv3.weight") else v for k, v in plain.items()}
    torch.save({"model": other, "ema": plain}, tmp_path / "two.pth")
    first, named = (
        CliRunner().invoke(export, [str(tmp_path / "two.pth"), str(tmp_path / f"{i}.onnx"), "--tile", "64", *key])
        for i, key in enumerate(([], ["--key", "ema"]))
    )
    assert first.stderr.count("ema fits too: --key ema takes it") == 1
    assert named.exit_code == 0, named.output
    assert "fits too" not in named.output
    CliRunner().invoke(export, [str(EMBEDDED), str(tmp_path / "plain.onnx"), "--tile", "64"])
    taken, wanted = (onnx.load(tmp_path / name).graph.SerializeToString() for name in ("1.onnx", "plain.onnx"))
    assert taken == wanted
    assert onnx.load(tmp_path / "0.onnx").graph.SerializeToString() != wanted


OTHER = ["--mean", "0.5,0.5,0.5", "--std", "0.229,0.224,0.225"]


@pytest.mark.parametrize("channels", ["BGR", "RGB"])
def test_a_network_trained_with_another_preparation_draws_the_same_roads(tmp_path, channels):
    """The first layer takes what the preparation changes, so both networks compute the same.

    Its padding is 0 in either preparation, so the masks are equal only if 0 is the same colour in both.
    """
    plain = {k.removeprefix("module."): v.float() for k, v in torch.load(EMBEDDED, weights_only=True).items()}
    first = plain["firstconv.weight"] * (3.2 * torch.tensor([0.225, 0.224, 0.229]))[:, None, None]  # blue, green, red
    torch.save(plain | {"firstconv.weight": first if channels == "BGR" else first.flip(1)}, tmp_path / "other.pth")
    tile = ["--tile", "256"]
    arguments = [[str(EMBEDDED)], [str(tmp_path / "other.pth"), *OTHER, "--channels", channels]]
    said = []
    for i, given in enumerate(arguments):
        result = CliRunner().invoke(export, [*given, "-o", str(tmp_path / f"{i}.onnx"), *tile])
        assert result.exit_code == 0, result.output
        said += [line for line in result.stdout.splitlines() if line.startswith("prepared as")]
    assert said[0].startswith("prepared as BGR, pixel / 255 * 3.2 - 1.6 (the D-LinkNet authors'), 0.5 m a pixel;")
    words = "mean 0.5,0.5,0.5 and std 0.229,0.224,0.225 of red, green, blue in 0..1"
    assert said[1].startswith(f"prepared as {channels}, {words}, 0.5 m a pixel; --channels, --mean, --std and")
    image = with_roads(1, 256, 9)[0].image
    masks = []
    for i in range(2):
        with open_model(tmp_path / f"{i}.onnx") as model:
            masks.append(model.mask(image))
    assert 0.02 < (masks[0] > 0).mean() < 0.5
    assert (masks[0] == masks[1]).all()


def test_the_preparation_of_pp_linknet_is_named(tmp_path):
    torch.manual_seed(0)
    torch.save(build("pplinknet34-psp64", 0.125).state_dict(), tmp_path / "pp.pth")
    result = CliRunner().invoke(export, [str(tmp_path / "pp.pth"), "-o", str(tmp_path / "pp.onnx"), "--tile", "64"])
    assert (
        "prepared as BGR, mean 0.4145,0.3921,0.3262 and std 0.1411,0.1211,0.1134 of red, green, blue" in result.output
    )


def test_a_preparation_for_an_ensemble_of_different_preparations_is_refused(tmp_path):
    torch.save(build("pplinknet34-psp64", 0.125).state_dict(), tmp_path / "pp.pth")
    given = [str(EMBEDDED), str(tmp_path / "pp.pth"), "-o", str(tmp_path / "two.onnx"), "--tile", "64", *OTHER]
    result = CliRunner().invoke(export, given)
    assert "Error: --mean: these networks have different preparations of their own; export each" in result.stderr


@pytest.mark.parametrize("text", ["", "0.5,", "a,b,c"])
def test_a_mean_that_is_not_numbers_is_refused(tmp_path, text):
    result = CliRunner().invoke(export, [str(EMBEDDED), "-o", str(tmp_path / "x.onnx"), "--mean", text])
    assert result.exit_code == 2
    assert f"--mean: '{text}' is not numbers separated by commas, such as 0.485" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{ckpt}", "{tmp}/roads.pt"], "roads.pt: the name must end in .onnx"),
        (["{ckpt}", "{tmp}/roads.onnx", "--tile", "1000"], "tile must be a positive multiple of 32, got 1000"),
        (["{ckpt}", "{tmp}/roads.onnx", "--threshold", "1"], "threshold must be in [0, 1), got 1.0"),
        (["{ckpt}", "{tmp}/roads.onnx", "--arch", "vnet"], "--arch vnet: not a network of dlink"),
        (["{ckpt}", "{tmp}/roads.onnx", "--mean", "0.5,0.5,0.5"], "--mean: --std is missing; give both, or neither"),
        (["{ckpt}", "{tmp}/roads.onnx", "--std", "0.5,0.5,0.5"], "--std: --mean is missing; give both, or neither"),
        (
            ["{ckpt}", "{tmp}/roads.onnx", "--mean", "123.7,116.3,103.5", "--std", "1,1,1"],
            "--mean 123.7,116.3,103.5: must be in 0..1; divide numbers for pixels of 0..255 by 255",
        ),
        (["{ckpt}", "{tmp}/roads.onnx", "--mean", "0,0,0", "--std", "nan,1,1"], "--std nan,1,1: must be in 0..1"),
        (["{ckpt}", "{tmp}/roads.onnx", "--mean", "0,0,0", "--std", "0,1,1"], "--std: must be greater than 0; give"),
        (["{ckpt}", "{tmp}/roads.onnx", "--class", "0"], "--class 0: the network's last layer has one class; leave"),
        (["{ckpt}", "{tmp}/roads.onnx", "--key", "ema"], "--key ema: the checkpoint has no such key; there are module"),
        (["{ckpt}", "{tmp}/roads.onnx", "--arch", "linknet34"], "unexpected: dblock.dilate1.weight"),
        (["{ckpt}", "{tmp}/roads.onnx", "--tile", "64", "--tiles", "{tmp}"], "no tiles; expected"),
        (
            ["{tmp}/junk.th", "{tmp}/roads.onnx"],
            "junk.th: a text file, not a checkpoint; it begins with 'junkjunk",
        ),
        (["{tmp}/junk.th"], "junk.th: the file to write is missing after it: dlink-export {tmp}/junk.th junk.onnx"),
        (["{tmp}/new.th"], "new.th: there is no such checkpoint"),
        (["{ckpt}", "/dev/null/roads.onnx", "--tile", "64"], "/dev/null"),
    ],
)
def test_export_refuses_in_one_line_and_leaves_nothing(tmp_path, arguments, message):
    (tmp_path / "junk.th").write_bytes(b"junk" * 50)
    filled = [a.format(ckpt=EMBEDDED, tmp=tmp_path) for a in arguments]
    result = CliRunner().invoke(export, filled)
    assert result.exit_code == 1
    assert message.replace("{tmp}", str(tmp_path)) in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
    assert "Traceback" not in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["junk.th"]


def test_a_write_error_leaves_nothing(tmp_path):
    # A limit on file sizes stands for a full disk: the write fails in the middle.
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from dlink.cli.export import export
export([{str(EMBEDDED)!r}, {str(tmp_path / "roads.onnx")!r}, "--tile", "64"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert "File too large" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_scenes_and_training_go_together(tmp_path):
    made = CliRunner().invoke(scenes, [str(tmp_path / "s"), "--count", "3", "--size", "128", "--workers", "1"])
    assert made.exit_code == 0, made.output
    assert [t.id for t in find_tiles(tmp_path / "s")] == ["000000", "000001", "000002"]
    options = ["--width", "0.125", "--crop", "64", "--batch", "1", "--epochs", "1", "--half"]
    result = CliRunner().invoke(train, [str(tmp_path / "s"), "-o", str(tmp_path / "net.th"), *options])
    assert result.exit_code == 0, result.output
    assert "1 epoch, loss" in result.stdout
    assert (tmp_path / "net.th").stat().st_size < 1.5e6


def test_the_demonstration_makes_what_it_says(tmp_path, monkeypatch):
    from dlink.cli.demo import demo

    result = CliRunner().invoke(demo, ["-o", str(tmp_path / "demo"), "--size", "512"])
    assert result.exit_code == 0, result.output
    made = {p.name for p in (tmp_path / "demo").iterdir()}
    assert made >= {"roads.onnx", "scene.png", "label.png", "mask.png", "overlay.png", "agreement.png"}
    assert "same roads" in result.stdout
