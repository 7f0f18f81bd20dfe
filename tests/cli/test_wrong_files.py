"""Files of another kind than a command takes: refused by the command that would help, before anything is written."""

import numpy as np
import pytest

from dlink.imagery.images import write_image
from dlink.runtime import BadInput, open_model
from tests.support.command import call


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", "roads.th", "picture.png", "-o", "mask.png"),
        ("tune", "roads.th", "tiles"),
        ("check", "roads.th", "tiles", "--against", "roads.th"),
        ("calibrate", "roads.th", "tiles", "-o", "int8.onnx"),
        ("build", "roads.th", "-o", "roads.plan"),
        ("inspect", "roads.th"),
        ("layers", "roads.th", "tiles"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_checkpoint_where_a_model_is_wanted_is_named_with_what_makes_a_model_of_it(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roads.th").write_bytes(b"PK\3\4")
    (tmp_path / "tiles").mkdir()
    image = np.full((64, 64, 3), 90, np.uint8)
    for name in ("picture.png", "tiles/1_sat.png", "tiles/1_mask.png"):
        write_image(tmp_path / name, image if "mask" not in name else image[..., 0])
    said = call(*arguments, code=1).stderr
    assert said == "Error: roads.th: is a checkpoint; make a model of it first: dlink-export roads.th roads.onnx\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["picture.png", "roads.th", "tiles"]


def test_an_embedder_is_told_the_same():
    with pytest.raises(BadInput, match=r"roads.pth: is a checkpoint; .*dlink-export roads.pth roads.onnx"):
        open_model("roads.pth")


@pytest.mark.parametrize("name", ["roads.onnx", "roads.plan", "roads"])
@pytest.mark.parametrize("command", ["train", "distil"])
def test_a_training_writes_no_checkpoint_under_the_name_of_another_file(command, name, tmp_path):
    (tmp_path / name).write_bytes(b"what was there before")
    write_image(tmp_path / "1_sat.png", np.full((64, 64, 3), 90, np.uint8))
    begun = ["--init", tmp_path / name] if command == "distil" else []
    said = call(command, tmp_path, "-o", tmp_path / name, *begun, code=1).stderr
    assert f"{name}: a checkpoint's name ends in .th, .pth, .pt; name it roads.th" in said
    assert (tmp_path / name).read_bytes() == b"what was there before"
