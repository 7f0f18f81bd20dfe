"""dlink-build: from the command line, with a compiler that needs no GPU."""

import json
from dataclasses import replace
from functools import partial

import pytest

from dlink.cli import plans
from dlink.cli.build import notes
from dlink.cli.inspect import plan_in_words
from dlink.cli.plans import OpenOptions
from dlink.engine.build import BuildProgress, BuildResult, compile
from dlink.engine.versions import Compiler
from dlink.runtime import BadPlan, Mismatch, NoEngine, Spec
from dlink.trt_runtime.manifest import manifest_of, parse, read_bytes
from dlink.trt_runtime.plan import look_here, read_plan
from tests.export.test_export import SIDE
from tests.support.calibrated import folder_of, small
from tests.support.command import call
from tests.support.models import write_pointwise
from tests.support.plans import MANIFEST, checked, write

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'dlink[test]' on Linux x86-64")

NO_GPU = pytest.mark.skipif(bool(look_here().gpus.found), reason="needs a machine without a GPU")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return small("linknet34", tmp_path_factory.mktemp("net") / "net.onnx", "fp16")


def test_a_plan_for_unlisted_gpus_says_so(net, tmp_path):
    said = call("build", net, "-o", tmp_path / "roads.plan", "--target", "tensorrt-rtx", "--unlisted-gpu").stdout
    assert "12.1 and newer, and those between where TensorRT-RTX takes it" in said
    assert read_plan(tmp_path / "roads.plan")[1].options.unlisted_gpu


@NO_GPU
def test_a_plan_for_the_gpu_at_hand_needs_one(net, tmp_path):
    command = [
        "build",
        net,
        "-o",
        tmp_path / "roads.plan",
        "--target",
        "tensorrt-rtx",
        "--compute-capability",
        "current",
    ]
    said = call(*command, code=1).stderr
    assert "--compute-capability current: needs a GPU, and there is none here" in said


@NO_GPU
def test_a_plan_is_built_and_told_of(net, tmp_path):
    result = call("build", net, "-o", tmp_path / "roads.plan", "--max-tiles", 2, "--compute-capability", "8.6, 8.9")
    assert f"up to 16 views of {SIDE} px at once" in result.stdout
    assert "computes in fp16, as its graph is typed; runs on compute capability 8.6, 8.9" in result.stdout
    assert "no GPU here runs this plan, so the engine's report could not be read" in result.stderr
    assert read_plan(tmp_path / "roads.plan")[1].runs_on.capabilities == ("8.6", "8.9")


def test_json_is_the_manifest_and_nothing_else(net, tmp_path):
    said = call("build", net, "-o", tmp_path / "roads.plan", "--json", "--target", "tensorrt-rtx").stdout
    assert json.loads(said) == json.loads(manifest_of(tmp_path / "roads.plan").read_text())
    assert json.loads(call("inspect", tmp_path / "roads.plan", "--json").stdout)["built"]["target"] == "tensorrt-rtx"


def test_a_plan_alone_is_described(tmp_path):
    said = call("inspect", write(tmp_path)).stdout
    assert "TensorRT 10.3.0, up to 16 views of 64 px at once" in said
    assert "computes in fp16 99 %, fp32, as its layers report; runs on compute capability 8.7" in said
    assert "not checked yet" in said
    assert (
        "same roads, checked on 14 tiles against roads.th" in call("inspect", write(tmp_path, verdict=checked())).stdout
    )


def test_explain_lists_what_each_convolution_asks_for(net):
    said = call("inspect", net, "--explain").stdout
    assert said.splitlines()[0].split() == ["node", "type", "share", "asked", "for"]
    assert "/firstconv/Conv" in said
    assert said.count("fp16") == len(said.splitlines()) - 1


@NO_GPU
def test_without_a_gpu_what_needs_one_says_so_in_one_line(net, tmp_path):
    said = call("build", net, "-o", tmp_path / "roads.plan", "--target", "tensorrt", code=1).stderr
    assert "TensorRT builds on the GPU that the plan is for, and there is none here" in said
    plan = write(tmp_path)
    for command in (["inspect", plan, "--explain"], ["check", plan, tmp_path, "--against", net], ["bench", plan]):
        folder_of(tmp_path / "tiles", 1, 128) if not (tmp_path / "tiles").exists() else None
        command = [tmp_path / "tiles" if part == tmp_path else part for part in command]
        said = call(*command, code=1).stderr
        assert "a plan needs an NVIDIA GPU, and there is none here" in said
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["net.onnx"], "-o PLAN is missing: name the plan to write; dlink-inspect net.onnx describes the file"),
        (["net.onnx", "-o", "roads.engine"], "roads.engine: the name must end in .plan"),
        (["net.onnx", "-o", "nowhere/roads.plan"], "there is no folder nowhere; make it first"),
        (["net.onnx", "--rebuild"], "--rebuild is for a plan"),
        (["roads.plan", "-o", "other.plan"], "is a plan already"),
        (["notes.txt", "-o", "roads.plan"], "notes.txt: expected an ONNX file"),
        (["net.onnx", "-o", "x.plan", "--compute-capability", "86"], "'86' is not a compute capability, such as 8.6"),
        (["text.onnx", "-o", "x.plan"], "text.onnx: not an ONNX model, or a damaged one"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    write_pointwise(tmp_path / "net.onnx", Spec(tile=64))
    for name in ("notes.txt", "text.onnx"):
        (tmp_path / name).write_text("words")
    before = set(tmp_path.iterdir())
    said = call("build", *args, code=1).stderr
    assert message in said
    assert said.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_rebuild_mends_a_damaged_plan(net, tmp_path):
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(net.read_bytes())
    plan = tmp_path / "roads.plan"
    call("build", onnx, "-o", plan, "--views", 1, "--target", "tensorrt-rtx")
    plan.write_bytes(b"damaged")
    with pytest.raises(BadPlan):
        read_plan(plan)
    assert "up to 1 view of" in call("build", plan, "--rebuild").stdout
    assert read_plan(plan)[1].options.views == 1


class Model:
    def __init__(self, error):
        self.errors = [error] if error else []

    def __call__(self, path, **how):
        if self.errors:
            raise self.errors.pop()
        return path, how


def test_commands_build_again_where_they_are_told_to(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr("dlink.engine.build.rebuild", lambda plan, tick: built.append(plan))
    plan = tmp_path / "roads.plan"
    for error in (BadPlan("damaged"), Mismatch("another GPU")):
        monkeypatch.setattr("dlink.runtime.open_model", Model(error))
        with pytest.raises(type(error)):
            plans.open_here(plan, OpenOptions(threads=2))
        monkeypatch.setattr("dlink.runtime.open_model", Model(error))
        path, how = plans.open_here(plan, OpenOptions(rebuild=True, threads=2))
        assert (path, how["threads"]) == (plan, 2)
    assert built == [plan, plan]
    monkeypatch.setattr("dlink.runtime.open_model", Model(NoEngine("no GPU")))
    with pytest.raises(NoEngine):
        plans.open_here(plan, OpenOptions(rebuild=True))
    with pytest.raises(ValueError, match=r"--rebuild is for plans"):
        plans.open_here(tmp_path / "net.onnx", OpenOptions(rebuild=True))
    with pytest.raises(ValueError, match=r"--rebuild makes a plan that nobody has signed"):
        plans.open_here(plan, OpenOptions(keys=(tmp_path / "key",), rebuild=True))


def test_progress_counts_phases_within_phases():
    progress = BuildProgress()
    progress.start("all", None, 4)
    progress.step("all", 0)
    assert progress.share == 0.25
    progress.start("inner", "all", 2)
    progress.step("inner", 0)
    assert progress.share == 0.375
    progress.finish("inner")
    progress.step("all", 3)
    assert progress.share == 1
    progress.step("unknown", 1)
    progress.start("odd", None, 0)
    progress.step("odd", 7)
    assert progress.share == 1


def test_a_log_that_says_nothing_of_sparse_kernels_is_told(tmp_path):
    manifest = replace(MANIFEST, options=replace(MANIFEST.options, sparse=True))
    (note,) = notes(BuildResult(manifest, [], None, []))
    assert note == "of sparse kernels TensorRT 10.3.0 says: nothing; --explain shows the engine's layers"
    assert "and gives float32; may have kernels for 2:4 sparse weights" in plan_in_words(tmp_path, manifest)
    assert "sparse" not in plan_in_words(tmp_path, MANIFEST)


def keep(ticks, *tick):
    ticks.append(tick)


def test_where_tensorrt_is_silent_the_last_builds_time_is_the_estimate(monkeypatch):
    import time
    from types import SimpleNamespace

    monkeypatch.setattr("dlink.engine.build.run", lambda *args: time.sleep(0.5) or b"plan")
    silent = Compiler("tensorrt", SimpleNamespace(__version__="8.6.1"))
    for before, total in ((None, 0), (1.0, 100)):
        ticks = []
        assert compile(silent, None, None, None, partial(keep, ticks), before) == b"plan"
        assert ticks[0][1] == total
        assert ticks[-1][:2] == (100, 100)
        assert all(done < 100 for done, *_ in ticks[:-1])


def test_the_manifest_of_what_was_there_before_gives_the_estimate(tmp_path):
    from dlink.engine.build import seconds_before

    assert seconds_before(tmp_path / "roads.plan") is None
    path = write(tmp_path)
    assert seconds_before(path) == 61.5
    manifest_of(path).write_text("damaged")
    assert seconds_before(path) is None


def test_a_verdict_is_lost_with_the_plan_it_was_given(net, tmp_path):
    plan = tmp_path / "roads.plan"
    call("build", net, "-o", plan, "--target", "tensorrt-rtx")
    manifest = parse(read_bytes(plan), plan)
    replace(manifest, verdict=checked(plan=plan.read_bytes())).write(plan)
    assert read_plan(plan, require_verdict=True)
    call("build", net, "-o", plan, "--target", "tensorrt-rtx")
    assert parse(read_bytes(plan), plan).verdict is None
