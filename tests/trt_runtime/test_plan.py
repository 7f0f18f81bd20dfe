"""Plans: what is verified before TensorRT sees a byte, and the line that mends what does not hold."""

import random
from dataclasses import replace

import pytest

from dlink.runtime import BadInput, BadPlan, Mismatch, NoEngine, Untrusted, open_model
from dlink.trt_runtime.manifest import RunsOn, manifest_of
from dlink.trt_runtime.nvidia_driver import Gpu, Gpus
from dlink.trt_runtime.plan import Here, fit, installed_tensorrt, look_here, made_by, read_plan
from tests.support.models import write_pointwise
from tests.support.plans import COMMAND, HERE, MANIFEST, ORIN, PLAN, checked, write

BUILT = MANIFEST.built


def test_a_sound_plan_gives_its_own_bytes(tmp_path):
    data, manifest = read_plan(write(tmp_path))
    assert data == PLAN
    assert fit(tmp_path / "roads.plan", manifest, HERE) == ORIN


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PLAN[:-1], "truncated: 127 bytes, roads.plan.json says 128"),
        (PLAN + b"x", "another: 129 bytes"),
        (PLAN[:-1] + b"x", "damaged, or not the plan that roads.plan.json was written for"),
        (b"", "truncated"),
    ],
)
def test_a_changed_plan_is_refused_with_the_command_that_mends_it(data, message, tmp_path):
    path = write(tmp_path)
    path.write_bytes(data)
    with pytest.raises(BadPlan) as e:
        read_plan(path)
    assert message in str(e.value)
    assert COMMAND.format(folder=tmp_path) in str(e.value)


def test_a_plan_of_another_compiler_than_its_manifest_says_is_refused(tmp_path):
    path = write(tmp_path, b"vtrt" + PLAN[4:24] + bytes([1, 7, 1, 116]) + PLAN[28:])
    with pytest.raises(BadPlan, match=r"a plan of TensorRT-RTX 1.7.1.116, its manifest says TensorRT 10.3.0"):
        read_plan(path)


def test_a_plan_without_its_manifest_or_with_anothers_is_refused(tmp_path):
    path = write(tmp_path)
    other = tmp_path / "other.plan"
    path.rename(other)
    with pytest.raises(BadPlan, match=r"other.plan: has no manifest other.plan.json beside it"):
        read_plan(other)
    manifest_of(path).rename(manifest_of(other))
    other.write_bytes(bytes(128))
    with pytest.raises(BadPlan, match=r"damaged, or not the plan"):
        read_plan(other)


@pytest.mark.parametrize(
    ("version", "newer", "fits"),
    [
        ("10.3.0", False, True),
        ("10.3.0.26", False, True),
        ("10.3.1", False, False),
        ("10.4.0", False, False),
        ("10.4.0", True, True),
        ("10.2.9", True, False),
        ("11.0.0", True, False),
    ],
)
def test_a_plan_runs_in_its_own_tensorrt_or_so_built_in_newer_ones(version, newer, fits, tmp_path):
    manifest = replace(MANIFEST, runs_on=RunsOn(capabilities=("8.7",), newer_versions=newer))
    here = Here(HERE.gpus, {"tensorrt": version})
    if fits:
        assert fit(tmp_path / "roads.plan", manifest, here) == ORIN
        return
    with pytest.raises(Mismatch) as e:
        fit(tmp_path / "roads.plan", manifest, here)
    assert f"a plan of TensorRT 10.3.0, here is TensorRT {version}" in str(e.value)
    assert COMMAND.format(folder=tmp_path) in str(e.value)


@pytest.mark.parametrize(
    ("capabilities", "newer", "here", "fits"),
    [
        (("8.7",), False, "8.7", True),
        (("8.7",), False, "8.6", False),
        (("8.6", "8.9"), False, "8.9", True),
        (("8.0",), True, "8.9", True),
        (("8.0",), True, "12.0", True),
        (("8.0",), True, "7.5", False),
        (("8.9",), True, "8.10", True),
        ((), True, "8.9", False),
        (("8.0", "8.9", "12.1"), True, "9.0", False),
        (("8.0", "8.9", "12.1"), "unlisted", "9.0", True),
        (("8.0", "8.9", "12.1"), "unlisted", "8.7", True),
        (("8.0", "8.9", "12.1"), "unlisted", "11.0", True),
        (("8.0", "8.9", "12.1"), "unlisted", "12.2", True),
        (("8.0", "8.9", "12.1"), "unlisted", "7.5", False),
        ((), "unlisted", "9.0", False),
    ],
)
def test_a_plan_runs_on_the_gpus_it_was_built_for(capabilities, newer, here, fits, tmp_path):
    where = RunsOn(capabilities=capabilities, newer_gpus=bool(newer), unlisted_gpus=newer == "unlisted")
    manifest = replace(MANIFEST, runs_on=where)
    gpus = Gpus("12.6", (Gpu("Another", here, 8 << 30),))
    if fits:
        assert fit(tmp_path / "roads.plan", manifest, Here(gpus, HERE.versions)).capability == here
        return
    with pytest.raises(Mismatch, match=rf"for GPUs of compute capability .*\(built on Orin\), here is Another.*{here}"):
        fit(tmp_path / "roads.plan", manifest, Here(gpus, HERE.versions))


@pytest.mark.parametrize(("capability", "may"), [("9.0", True), ("8.7", True), ("11.0", True), ("7.5", False)])
def test_a_gpu_that_tensorrt_rtx_does_not_list_is_refused_with_the_option_that_tries_it(capability, may, tmp_path):
    gpu = Gpu("NVIDIA H200", capability, 141 << 30)
    manifest = replace(
        MANIFEST,
        built=replace(BUILT, target="tensorrt-rtx", version="1.7.1.116", cuda="", gpu=""),
        runs_on=RunsOn(capabilities=("8.0", "8.6", "8.9", "12.0", "12.1"), newer_gpus=True),
        options=replace(MANIFEST.options, target="tensorrt-rtx", workspace=None),
    )
    here = Here(Gpus("13.0", (gpu,)), {"tensorrt-rtx": "1.7.1.116"})
    with pytest.raises(Mismatch) as e:
        fit(tmp_path / "roads.plan", manifest, here)
    assert "for GPUs of compute capability 8.0, 8.6, 8.9, 12.0, 12.1 and newer, here is NVIDIA H200" in str(e.value)
    assert ("without listing it: dlink-build" in str(e.value)) == may
    line = "--target tensorrt-rtx --max-tiles 2" + (" --unlisted-gpu" if may else "")
    assert str(e.value).endswith(line)
    allowed = replace(manifest, runs_on=replace(manifest.runs_on, unlisted_gpus=True))
    if may:
        assert fit(tmp_path / "roads.plan", allowed, here) == gpu


def test_an_older_driver_is_named(tmp_path):
    with pytest.raises(Mismatch, match=r"driver for CUDA 12.6, the driver here is for 11.4; update the driver"):
        fit(tmp_path / "roads.plan", MANIFEST, Here(Gpus("11.4", (ORIN,)), HERE.versions))
    newer = replace(MANIFEST, built=replace(BUILT, cuda="12.9"))
    assert fit(tmp_path / "roads.plan", newer, HERE)  # within a major version an older one will do


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (
            Here(Gpus(fault="libcuda.so.1: no such file"), {}),
            "needs an NVIDIA GPU, and there is none here: libcuda",
        ),
        (
            Here(HERE.gpus, {}),
            "here is neither TensorRT nor TensorRT-RTX; install TensorRT 10.3.0",
        ),
        (Here(HERE.gpus, {"tensorrt-rtx": "1.7.1"}), "here is TensorRT-RTX 1.7.1; install TensorRT 10.3.0"),
    ],
)
def test_what_is_missing_here_is_said(here, message, tmp_path):
    with pytest.raises(NoEngine) as e:
        fit(tmp_path / "roads.plan", MANIFEST, here)
    assert message in str(e.value)


def test_a_verdict_is_required_where_that_is_asked(tmp_path):
    for verdict, message in [
        (None, r"nobody has checked that it draws the same roads; check it: dlink-check \S+roads.plan TILES"),
        (checked(plan=b"another"), r"its verdict belongs to an earlier build"),
        (checked(same_roads=False), r"does not draw the same roads: NOT the same roads"),
    ]:
        path = write(tmp_path, verdict=verdict)
        assert read_plan(path)
        with pytest.raises(Untrusted, match=message):
            read_plan(path, require_verdict=True)
    assert read_plan(write(tmp_path, verdict=checked()), require_verdict=True)


def test_signatures_and_verdicts_are_not_asked_of_onnx_files(tmp_path):
    path = write_pointwise(tmp_path / "red.onnx", MANIFEST.spec)
    with pytest.raises(BadInput, match=r"only plans have signatures and verdicts"):
        open_model(path, require_verdict=True)


def test_opening_a_plan_here_says_in_one_line_why_not(tmp_path):
    if look_here().gpus.found:
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(NoEngine, match=r"^\S+roads.plan: a plan needs an NVIDIA GPU, and there is none here: .*$"):
        open_model(write(tmp_path))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (PLAN, ("tensorrt", "10.3.0.0")),
        (PLAN[:10], ("tensorrt", "")),
        (b"vtrt" + bytes(20) + bytes([1, 7, 1, 116]), ("tensorrt-rtx", "1.7.1.116")),
        (b"ftrt\1" + PLAN[5:], ("tensorrt", "")),  # another layout than the one that is known
        (b"zlib" + PLAN, ("", "")),
        (b"", ("", "")),
    ],
)
def test_a_plans_first_bytes_name_its_compiler(data, said):
    assert made_by(data) == said


def test_no_changed_plan_is_ever_handed_on(tmp_path):
    """Heads, tails and sizes, changed at random: either the very bytes or BadPlan."""
    rng = random.Random(1)
    path = write(tmp_path)
    for _ in range(5000):
        data = bytearray(PLAN)
        for _ in range(rng.randint(0, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.choice((len(data), len(data), rng.randrange(len(data) + 1)))]
        path.write_bytes(data)
        if bytes(data) == PLAN:
            assert read_plan(path)[0] == PLAN
            continue
        with pytest.raises(BadPlan):
            read_plan(path)


def test_built_without_a_gpu_no_driver_is_too_old(tmp_path):
    manifest = replace(MANIFEST, built=replace(BUILT, cuda="", driver="", gpu="", capability=""))
    assert fit(tmp_path / "roads.plan", manifest, HERE) == ORIN


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("tensorrt-rtx", "tensorrt_rtx"),
        ("tensorrt-rtx", "tensorrt_rtx_cu13"),
        ("tensorrt-rtx", "tensorrt_rtx_cu13_bindings"),
        ("tensorrt-rtx", "tensorrt_rtx_cu12_bindings"),
        ("tensorrt", "tensorrt"),
        ("tensorrt", "tensorrt_bindings"),
        ("tensorrt", "tensorrt_cu11"),
        ("tensorrt", "tensorrt_cu12_bindings"),
    ],
)
def test_a_tensorrt_is_found_by_whichever_of_its_packages_is_there(target, name, tmp_path, monkeypatch):
    home = tmp_path / f"{name}-1.7.1.dist-info"
    home.mkdir()
    (home / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.7.1\n")
    (tmp_path / "tensorrt_lean-8.6.1.dist-info").mkdir()  # which runs plans and is imported by another name
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert installed_tensorrt(target) == "1.7.1"
    assert [t for t in ("tensorrt", "tensorrt-rtx") if installed_tensorrt(t)] == [target]
    from dlink.doctor.extras import BY_NAME

    assert name.replace("_", "-") in BY_NAME["TensorRT-RTX" if "rtx" in target else "TensorRT"].distributions
