"""dlink-bench beside an earlier result and with conditions, on a network of one convolution."""

import json

import pytest

from dlink.bench import run
from dlink.runtime import Spec
from dlink.runtime.files import file_sha256
from tests.support.command import call
from tests.support.models import write_pointwise, write_scout

FAST = ("--views", "1", "--seconds", "0.05")


@pytest.fixture
def model(tmp_path):
    return write_pointwise(tmp_path / "red.onnx", Spec(tile=64, gsd_m=0.5))


def as_json(*args, **given):
    return json.loads(call("bench", *args, "--json", **given).stdout)


def test_a_condition_beside_an_earlier_result(model, tmp_path):
    old = tmp_path / "old.json"
    earlier = as_json(model, *FAST)
    old.write_text(json.dumps(earlier))
    good = call("bench", model, *FAST, "--baseline", old, "--fail-if", "p50>10000x", "--fail-if", "max>1000s")
    assert "p50>10000x: p50 with 1 view is" in good.stdout
    bad = call("bench", model, *FAST, "--baseline", old, "--fail-if", "p50<10000x", "--fail-if", "max<1000s", code=1)
    failed = [line.split()[1] for line in bad.stderr.splitlines() if line.startswith("failed: ")]
    assert failed == ["p50<10000x:", "max<1000s:"]
    assert "Traceback" not in bad.output


def test_conditions_are_in_the_json(model):
    printed = as_json(model, *FAST, "--fail-if", "p50<1000s", code=1)["fail_if"]
    assert [(each["condition"], each["row"], each["failed"]) for each in printed] == [("p50<1000s", "1 view", True)]


def test_a_result_says_how_the_model_was_opened(model, tmp_path):
    scout = write_scout(tmp_path / "scout.onnx", model)
    how = as_json(model, "--soak", "0.1s", "--threads", "1", "--gsd", "0.25", "--scout", scout)["how"]
    small = how.pop("scout")
    assert how == {"threads": 1, "slots": 1, "halo": 16, "gsd_m": 0.25, "soak_s": 0.1}
    assert (small["name"], small["sha256"], small["width"]) == ("scout.onnx", file_sha256(scout), 0.5)
    how = as_json(model, *FAST, "--gsd", "native")["how"]
    assert (how["gsd_m"], how["soak_s"], how["scout"]) == (None, None, None)


@pytest.mark.parametrize("name", ["threads", "scout", "gsd", "soak"])
def test_a_run_that_was_opened_otherwise_is_refused_before_anything_is_measured(model, tmp_path, monkeypatch, name):
    old = tmp_path / "old.json"
    old.write_text(json.dumps(as_json(model, "--soak", "0.1s", "--threads", "1")))
    usual = {"soak": ["--soak", "0.1s"], "threads": ["--threads", "1"]}
    other = {
        "threads": ["--threads", "2"],
        "scout": ["--scout", write_scout(tmp_path / "scout.onnx", model)],
        "gsd": ["--gsd", "0.25"],
        "soak": ["--soak", "1h"],
    }
    options = [word for words in {**usual, name: other[name]}.values() for word in words]
    monkeypatch.setattr(run, "measure", None)
    said = call("bench", model, *options, "--baseline", old, "--fail-if", "p50>1000s", code=1).stderr
    assert f"cannot be compared: its {name} is " in said
    assert f"; --allow {name} compares them all the same" in said


@pytest.mark.parametrize("printed", [True, False])
def test_a_figure_that_is_missing_costs_no_measurement(model, tmp_path, monkeypatch, printed):
    from dlink.bench.watch.energy import Energy

    monkeypatch.setattr(run, "open_energy", lambda gpu: Energy([], ["no meter"]))
    rows = tmp_path / "rows.jsonl"
    how = ["--json"] if printed else ["--append", rows]
    result = call("bench", model, *FAST, *how, "--fail-if", "joules>1J", "--fail-if", "p50>1000s", code=1)
    why = "--fail-if joules>1J: this run has no joules of 1 view"
    assert f"Error: {why}" in result.stderr
    kept = json.loads(result.stdout if printed else rows.read_text())
    assert kept["latency"][0]["p50_ms"] > 0
    assert kept["missing"] == [why]
    assert [each["failed"] for each in kept["fail_if"]] == [False]


def test_pytorch_that_fails_costs_no_measurement(tmp_path, monkeypatch):
    path = write_pointwise(tmp_path / "other.onnx", Spec(tile=64, arch="adopted net"))
    rows = tmp_path / "rows.jsonl"
    result = call("bench", path, *FAST, "--append", rows, "--baseline", "torch", code=1)
    assert "--baseline torch: needs a network of dlink's list" in result.stderr
    assert json.loads(rows.read_text())["latency"][0]["p50_ms"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--soak", "1h", "--fail-if", "max>1s"), "--fail-if max>1s: a run with --soak has no max"),
        (("--gsd", "native", "--fail-if", "km2_per_h<3"), "the ground is not known with --gsd native"),
        (("--soak", "1h", "--fail-if", "gpu_memory_growth>1MB"), "is for plans"),
    ],
)
def test_what_the_run_can_never_have_is_refused_before_anything_is_measured(model, monkeypatch, options, words):
    monkeypatch.setattr(run, "measure", None)
    assert words in call("bench", model, *options, code=1).stderr


def test_a_row_that_the_baseline_lacks_is_refused_before_anything_is_measured(model, tmp_path, monkeypatch):
    old = tmp_path / "old.json"
    old.write_text(json.dumps(as_json(model, *FAST)))
    monkeypatch.setattr(run, "measure", None)
    said = call("bench", model, "--views", "1,8", "--baseline", old, "--fail-if", "p99>1.1x", code=1).stderr
    assert "--fail-if p99>1.1x: the baseline has no p99 of 8 views; measure it again with the same options" in said


def test_what_cannot_be_compared_is_refused_before_anything_is_measured(model, tmp_path, monkeypatch):
    old = tmp_path / "old.json"
    earlier = as_json(model, *FAST)
    earlier["network"]["precision"] = "int8"
    old.write_text(json.dumps(earlier))
    options = ("--baseline", old, "--fail-if", "p50>1000x")
    allowed = call("bench", model, *FAST, *options, "--allow", "precision")
    assert "note: another precision than the baseline's int8" in allowed.stdout
    monkeypatch.setattr(run, "measure", None)
    refused = call("bench", model, *FAST, *options, code=1)
    assert "its precision is int8, this run's is fp32; --allow precision compares" in refused.stderr
