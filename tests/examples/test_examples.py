"""The examples are run as a newcomer would run them, and give dlink's roads."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future
from importlib import metadata, util
from pathlib import Path

import cv2
import numpy as np
import pytest

from dlink.imagery.images import read_grey, read_image, write_image
from dlink.nets.embedded import EMBEDDED
from dlink.runtime import Closed, EngineFailed, HostBackend, NoProbability, Spec, open_model
from dlink.runtime.rounding import NOISE, settle
from dlink.scenes import with_roads
from dlink.trt_runtime.manifest import Ends
from tests.support.command import call
from tests.support.environments import ROOT
from tests.support.models import write_pointwise
from tests.support.plans import write

EXAMPLES = ROOT / "examples"
STANDIN = ROOT / "tests" / "support" / "standin"
SIDE = 64


def run(name, *arguments):
    return subprocess.run([sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True)


def mask_of(model, picture):
    with open_model(model) as opened:
        return opened.mask(read_image(picture))


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures, larger than a tile."""
    (folder := tmp_path / "pictures").mkdir()
    for i, scene in enumerate(with_roads(3, 128, 7_000_000)):
        write_image(folder / f"{i}_sat.png", scene.image[:100, :90])
    return folder


@pytest.fixture
def model(tmp_path):
    return write_pointwise(tmp_path / "roads.onnx", Spec(tile=SIDE))


def module(name):
    """An example as a module, so that its functions can be called."""
    spec = util.spec_from_file_location(name.removesuffix(".py"), EXAMPLES / name)
    spec.loader.exec_module(made := util.module_from_spec(spec))
    return made


@pytest.fixture
def loop():
    return module("embed_in_a_loop.py")


def test_every_example_is_listed():
    listed = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        assert path.name == "README.md" or f"[{path.name}]({path.name})" in listed, path.name


def test_a_folder_becomes_masks_and_one_bad_picture_does_not_stop_the_rest(model, pictures, tmp_path):
    (pictures / "1_sat.png").write_bytes((pictures / "1_sat.png").read_bytes()[:-40])
    done = run("folder_to_masks.py", model, pictures, tmp_path / "masks")
    assert done.returncode == 1
    assert [path.name for path in map(Path, done.stdout.split())] == ["0_mask.png", "2_mask.png"]
    assert done.stderr.startswith(f"Error: {pictures / '1_sat.png'}: a PNG that is cut short")
    assert done.stderr.count("\n") == 1
    for i in (0, 2):
        np.testing.assert_array_equal(
            read_grey(tmp_path / "masks" / f"{i}_mask.png"), mask_of(model, pictures / f"{i}_sat.png")
        )
        assert read_image(tmp_path / "masks" / f"{i}_overlay.jpg").shape == (100, 90, 3)


def test_a_folder_without_a_fault_is_exit_0_and_one_that_is_not_there_is_a_line(model, pictures, tmp_path):
    assert run("folder_to_masks.py", model, pictures, tmp_path / "masks").returncode == 0
    done = run("folder_to_masks.py", model, tmp_path / "nothing", tmp_path / "masks")
    assert (done.returncode, done.stderr) == (1, f"Error: {tmp_path / 'nothing'}: not a folder\n")


# Runs a program where dlink can't be imported, and OpenVINO's telemetry can't either.
WITHOUT_DLINK = """
import runpy, sys
sys.modules["dlink"] = sys.modules["openvino_telemetry"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_openvino_without_dlink_draws_the_same_roads(precision, tmp_path):
    network, picture, out = (tmp_path / name for name in ("roads.onnx", "tile.png", "mask.png"))
    call("export", EMBEDDED, network, "--tile", 128, "--precision", precision)
    [scene] = with_roads(1, 128, 7_000_000)  # the size of a tile
    write_image(picture, scene.image)
    program = EXAMPLES / "openvino_without_dlink.py"
    command = [sys.executable, "-c", WITHOUT_DLINK, program, network, picture, out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open_model(network) as model:
        ours = model.probabilities(scene.image), model.threshold
    theirs = module(program.name).road_probability(str(network), scene.image)
    np.testing.assert_allclose(theirs[0], ours[0], atol=1e-6)
    candidate, reference, near = settle((theirs, ours))
    np.testing.assert_array_equal(candidate, reference)
    assert 0.01 < reference.mean() < 0.99
    assert np.count_nonzero((read_grey(out) > 0) != reference) <= near.settled


def test_openvino_without_dlink_refuses_a_picture_of_another_size(model, pictures, tmp_path):
    done = run("openvino_without_dlink.py", model, pictures / "0_sat.png", tmp_path / "mask.png")
    assert (done.returncode, done.stderr) == (1, "Error: the picture must have 64 x 64 px, got 90 x 100\n")


def test_the_loop_draws_the_frames_of_a_folder(model, pictures, tmp_path):
    (pictures / "0_sat.png").write_bytes(b"nothing")
    done = run("embed_in_a_loop.py", model, pictures, tmp_path / "masks")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"Error: {pictures / '0_sat.png'}: no picture")
    assert done.stderr.endswith("2 shown, 0 dropped, 0 failed\n")  # both are under way at once
    for name in ("1_sat", "2_sat"):
        mask = read_grey(tmp_path / "masks" / f"{name}_mask.png")
        np.testing.assert_array_equal(mask, mask_of(model, pictures / f"{name}.png"))
        assert f"{name}: {(mask > 0).mean():.1%} road\n" in done.stdout


def test_the_loop_gives_a_videos_frames_in_rgb(loop, tmp_path):
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (SIDE, SIDE))
    for blue in (0, 250):
        film.write(np.full((SIDE, SIDE, 3), (blue, 20, 200), np.uint8))
    film.release()
    (first, dark), (second, bright) = loop.frames(str(tmp_path / "film.avi"), None)
    assert (first, second) == ("000000", "000001")
    for image, colour in ((dark, (200, 20, 0)), (bright, (200, 20, 250))):
        assert np.abs(image.astype(int) - colour).max() < 12  # JPEG's


class Held:
    """A model whose frames are done when the test says so."""

    def __init__(self):
        self.given = []

    def submit(self, image):
        self.given.append((int(image[0, 0, 0]), Future()))
        return self.given[-1][1]


def test_the_loop_drops_what_comes_while_two_are_under_way(loop):
    held, shown, count = Held(), [], Counter()

    def source():
        for number in range(6):
            yield str(number), np.full((1, 1, 3), number, np.uint8)
            if number == 3:
                held.given[0][1].set_result("roads of 0")
        for _, future in held.given[1:]:
            future.set_result("roads")

    loop.run(held, source(), lambda name, mask: shown.append(name), count)
    assert [number for number, _ in held.given] == [0, 1, 4]
    assert shown == ["0", "1", "4"]
    assert count == {"shown": 3, "dropped": 3}


def test_the_loop_goes_on_after_a_frame_that_gives_no_probabilities_and_not_after_an_engines_failure(loop):
    for error, left in ((NoProbability("tile 1 of 1"), {"failed": 1, "shown": 1}), (EngineFailed("gone"), {})):
        held, count = Held(), Counter()

        def source(held=held, error=error):
            yield "0", np.zeros((1, 1, 3), np.uint8)
            held.given[0][1].set_exception(error)
            yield "1", np.zeros((1, 1, 3), np.uint8)
            held.given[1][1].set_result("roads")

        try:
            loop.run(held, source(), lambda name, mask: None, count)
        except EngineFailed as e:
            assert str(e) == "gone"
        assert dict(count) == left


def test_the_loop_opens_the_model_again_after_an_engines_failure(loop, model, pictures, tmp_path, monkeypatch, capsys):
    opened = []

    def failing(path):
        opened.append(open_model(path))
        if len(opened) < 3:
            monkeypatch.setattr(opened[-1], "submit", lambda image: fail())
        return opened[-1]

    def fail():
        raise EngineFailed("the GPU failed")

    monkeypatch.setattr(loop, "open_model", failing)
    monkeypatch.setattr(sys, "argv", ["loop", str(model), str(pictures), str(tmp_path / "masks")])
    assert loop.main() == 0
    assert capsys.readouterr().err == "Error: the GPU failed\n" * 2 + "1 shown, 0 dropped, 0 failed\n"
    for each in opened:
        with pytest.raises(Closed):
            each.mask(np.zeros((1, 1, 3), np.uint8))


def test_ctrl_c_ends_the_loop_in_order(model, pictures, tmp_path):
    image = read_image(pictures / "0_sat.png")
    for i in range(400):
        write_image(pictures / f"{i:03}.png", image)
    command = [sys.executable, EXAMPLES / "embed_in_a_loop.py", model, pictures, tmp_path / "masks", "--rate", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "road" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    assert "Traceback" not in complaints
    assert "shown" in complaints.splitlines()[-1]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """examples/plan_in_cpp.cpp, compiled with NVIDIA's header of CUDA and the stand-in's of TensorRT."""
    if not shutil.which("g++"):
        pytest.skip("needs g++: apt-get install g++")
    try:
        [header] = [f for f in metadata.files("nvidia-cuda-runtime") if f.name == "cuda_runtime_api.h"]
    except metadata.PackageNotFoundError:
        pytest.skip("needs CUDA's headers: pip install 'dlink[test]' on Linux")
    made = tmp_path_factory.mktemp("cpp") / "plan_in_cpp"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-isystem", header.locate().parent]
    command += ["-I", STANDIN, EXAMPLES / "plan_in_cpp.cpp", STANDIN / "cuda.cpp", "-o", made]
    done = subprocess.run(command, capture_output=True, text=True)
    if "_Float16" in done.stderr:
        pytest.skip("needs g++: one that knows _Float16 (12 on x86)")
    assert done.returncode == 0, done.stderr
    return made


SPECS = {
    "D-LinkNet's": Spec(tile=SIDE),
    "another preparation": Spec(
        tile=SIDE, channels="RGB", scale=(0.01, 0.02, 0.015), shift=(-1.0, -2.0, -1.5), views=(0, 3, 5), threshold=0.37
    ),
    "one view": Spec(tile=SIDE, views=(6,)),
}


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("most", [1, 3, 16])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_program_in_cpp_draws_the_same_roads(program, spec, most, half, tmp_path):
    plan = write(tmp_path, spec=spec, ends=Ends(reads="float16" if half else "float32"))
    tile = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    done = in_cpp(program, plan, tile, tmp_path, most, half)
    assert done.returncode == 0, done.stderr

    def net(x):
        x = x.astype(np.float16).astype(np.float32) if half else x
        return 1 / (1 + np.exp(-2 * x[:, 2]))

    prob = HostBackend(net, spec).probabilities(tile[None])[0]
    mask = read_grey(tmp_path / "mask.pgm")
    sure = np.abs(prob - np.float32(spec.threshold)) > NOISE
    assert sure.mean() > 0.9
    np.testing.assert_array_equal((mask > 0)[sure], (prob > spec.threshold)[sure])
    assert set(np.unique(mask)) == {0, 255}


def in_cpp(program, plan, tile, folder, most=1, half=False):
    """Run it on an RGB tile, for a plan of so many views at once."""
    height, width = tile.shape[:2]
    (folder / "tile.ppm").write_bytes(b"P6\n%d %d\n255\n" % (width, height) + tile.tobytes())
    means = {"STANDIN_SIDE": str(SIDE), "STANDIN_MOST": str(most), "STANDIN_HALF": str(int(half))}
    command = [program, plan, folder / "tile.ppm", folder / "mask.pgm"]
    return subprocess.run(command, env={**os.environ, **means}, capture_output=True, text=True)


def test_the_program_in_cpp_says_what_is_wrong(program, tmp_path):
    plan, tile = write(tmp_path, spec=Spec(tile=SIDE)), np.zeros((SIDE, SIDE, 3), np.uint8)
    done = in_cpp(program, plan, tile[:-1], tmp_path)
    assert (done.returncode, done.stderr) == (1, f"Error: {tmp_path}/tile.ppm: must have 64 x 64 px\n")
    plan.write_bytes(b"something else")
    done = in_cpp(program, plan, tile, tmp_path)
    assert done.stderr == f"TensorRT: not a plan\nError: {plan}: is for another GPU or TensorRT; build it here\n"
    assert done.returncode == 1
