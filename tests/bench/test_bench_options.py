"""dlink-bench's options of a rate, a soak, an earlier result and a strict machine, on a network of one convolution."""

import json
from contextlib import nullcontext

import pytest

from dlink.bench import run
from dlink.bench.watch.watch import Conditions
from dlink.runtime import HostBackend, Spec
from tests.support.command import call
from tests.support.models import write_pointwise, write_scout

FAST = ("--views", "1", "--seconds", "0.05")
QUIET = {
    "seconds": 1.0, "others_share": 0.01, "stolen_share": 0.0, "load_average": (1.0, 1.5), "min_mhz": 2400.0,
    "median_mhz": 2500.0, "throttled": 0, "throttled_after_s": None, "gpu_min_mhz": None, "gpu_median_mhz": None,
    "gpu_throttled": None, "not_read": (),
}  # fmt: skip


@pytest.fixture
def model(tmp_path):
    return write_pointwise(tmp_path / "red.onnx", Spec(tile=64, gsd_m=0.5))


@pytest.fixture
def machine(monkeypatch):
    """A machine that was quiet, or as a test says."""
    values = dict(QUIET)

    class Watched(run.Watch):
        def seen(self):
            return Conditions(**values)

    monkeypatch.setattr(run, "Watch", Watched)
    monkeypatch.setattr("dlink.bench.headline.MOST_SPREAD", 1000.0)
    return values


def as_json(*args, **given):
    return json.loads(call("bench", *args, "--json", **given).stdout)


def test_frames_at_a_rate_have_their_row(model):
    found = as_json(model, *FAST, "--rate", "40")
    [row] = found["rate"]
    assert (row["views"], row["rate"], row["offered"]) == (1, 40, 2)
    assert row["roads"] + row["dropped"] == 2
    assert found["latency"] == []
    assert row["km2_per_h"] == pytest.approx(row["achieved_per_s"] * 3600 * (32 * 0.5) ** 2 / 1e6)


def test_a_rates_table_has_latency_age_and_drops(model):
    said = call("bench", model, *FAST, "--rate", "40").stdout
    assert "40 frames a second, each a tile; the newest is next" in said
    assert "age p50" in said
    assert "dropped" in said


@pytest.mark.parametrize("options", [(), ("--rate", "50")])
def test_a_soak_compares_its_beginning_with_its_end(model, options):
    found = as_json(model, "--soak", "0.3s", *options)
    assert found["soak"]["first"]["calls"] > 0
    assert found["soak"]["memory"]["end_bytes"] > 0
    assert found["soak"]["rate"] == (50 if options else None)
    assert (found["latency"], found["rate"]) == ([], [])


def test_a_soak_is_said_in_lines_and_a_short_one_by_its_halves(model):
    said = call("bench", model, "--soak", "0.1s").stdout
    assert "1 view, 0.1 s, " in said
    assert "first half (0.05 s): p50" in said
    assert "last half (0.05 s):  p50" in said
    assert "MB an hour after the first half (0.05 s)" in said
    assert "minute" not in said


def test_the_ground_is_the_models_or_the_users(model):
    [own] = as_json(model, *FAST)["latency"]
    [given] = as_json(model, *FAST, "--gsd", "0.25")["latency"]
    [native] = as_json(model, *FAST, "--gsd", "native")["latency"]
    assert own["km2_per_h"] / own["tiles_per_s"] == pytest.approx(3600 * (32 * 0.5) ** 2 / 1e6)
    assert given["km2_per_h"] / given["tiles_per_s"] == pytest.approx(3600 * (32 * 0.25) ** 2 / 1e6)
    assert native["km2_per_h"] is None


def test_a_quiet_machine_makes_a_headline(model, machine):
    found = as_json(model, *FAST, "--seconds", "0.2", "--strict")
    assert (found["headline"], found["no_headline"]) == (True, [])
    assert found["conditions"]["median_mhz"] == 2500


def test_a_busy_machine_makes_none_and_says_why(model, machine, tmp_path):
    machine["others_share"] = 0.4
    why = "other processes took 40.0% of the processors' time, more than 5%"
    kept = tmp_path / "rows.jsonl"
    said = call("bench", model, *FAST, "--append", kept).stdout
    assert f"no headline: {why}" in said
    assert "p50 ms" in said
    row = json.loads(kept.read_text())
    assert (row["headline"], why in row["no_headline"]) == (False, True)
    strict = call("bench", model, *FAST, "--strict", code=1)
    assert f"Error: --strict: no headline: {why}" in strict.stderr
    assert "p50 ms" in strict.stdout


def test_what_the_machine_did_is_printed(model, machine):
    machine |= {"throttled": 3, "throttled_after_s": 41.7, "stolen_share": 0.01}
    said = call("bench", model, *FAST).stdout
    assert (
        "other processes took 1.0% of the processors' time; the hypervisor 1.0%; load average 1.00, then 1.50" in said
    )
    assert "clock 2500 MHz, at least 2400; throttled 3 times, first after 42 s" in said
    assert "no headline: the processor was throttled, 3 times" in said


def counted(monkeypatch, joules):
    """Meters that count so many joules for each reading."""
    from dlink.bench.watch.energy import Energy

    class Meter:
        name = "RAPL (package-0)"
        total = 0.0

        def joules(self, now):
            self.total += joules
            return self.total

    monkeypatch.setattr(run, "open_energy", lambda gpu: Energy([Meter()], []))


def test_energy_is_that_of_the_timed_tiles_alone(model, monkeypatch, machine):
    counted(monkeypatch, 12.0)
    monkeypatch.setattr("dlink.bench.watch.watch.EVERY", None)
    monkeypatch.setattr(run.Watch, "__init__", quiet_watch(run.Watch.__init__))
    found = as_json(model, *FAST)
    [row] = found["latency"]
    assert row["joules_per_tile"] == pytest.approx(12 / row["calls"])
    assert found["energy"]["by"] == ["RAPL (package-0)"]


def quiet_watch(init):
    """A Watch that does not look by itself."""

    def made(self, energy, sources, every=None):
        init(self, energy, sources, None)

    return made


def test_the_gpu_is_watched_for_a_plan_and_for_one_behind_a_scout(model, tmp_path, monkeypatch):
    from dlink.runtime import open_model

    gpu = object()
    monkeypatch.setattr(run, "open_nvml", lambda: gpu)
    with open_model(model) as alone:
        assert run.gpu_of(alone, []) is None
        vars(alone.backend)["manifest"] = object()
        assert run.gpu_of(alone, []) is gpu
    with open_model(model, scout=write_scout(tmp_path / "scout.onnx", model)) as both:
        assert run.gpu_of(both, []) is None
        vars(both.backend.large)["manifest"] = object()
        assert run.gpu_of(both, []) is gpu


def test_a_plan_beside_the_best_of_pytorch_is_refused_before_anything_is_measured(model, monkeypatch):
    monkeypatch.setattr(HostBackend, "manifest", object(), raising=False)
    monkeypatch.setattr(run, "measure", None)
    said = call("bench", model, *FAST, "--baseline", "best-torch", code=1).stderr
    assert "--baseline best-torch: is for models on a processor" in said


def test_energy_that_nothing_counts_is_absent_with_the_reasons(model, monkeypatch):
    from dlink.bench.watch.energy import Energy

    monkeypatch.setattr(run, "open_energy", lambda gpu: Energy([], ["/sys/class/powercap: no intel-rapl"]))
    said = call("bench", model, *FAST).stdout
    assert "energy is not counted: /sys/class/powercap: no intel-rapl" in said
    assert as_json(model, *FAST)["latency"][0]["joules_per_tile"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fail-if", "p99>1.1x"], "--fail-if p99>1.1x: needs --baseline FILE"),
        (["--fail-if", "speed>1x"], "--fail-if speed>1x: no figure speed"),
        (["--soak", "ten"], "--soak ten: must be a length of time"),
        (["--soak", "1s", "--views", "1,8"], "--views 1,8: --soak is one long run; give one number of views"),
        (["--allow", "tile"], "--allow: is for --baseline FILE"),
    ],
)
def test_options_that_say_nothing_are_one_line(model, options, words):
    result = call("bench", model, "--seconds", "0.05", *options, code=1)
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_baseline_is_a_word_or_a_file_that_is_there(model):
    result = call("bench", model, "--baseline", "pytorch", code=2)
    assert "--baseline" in result.stderr
    assert "pytorch" in result.stderr


def test_one_earlier_result_is_enough(model, tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    result = call("bench", model, "--baseline", tmp_path / "a.json", "--baseline", tmp_path / "b.json", code=1)
    assert "--baseline: one earlier result, got" in result.stderr


def test_the_best_of_pytorch_is_beside_ours(tmp_path, monkeypatch):
    import torch

    from dlink.bench import best_torch

    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=64, width=0.25))
    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(best_torch, "freezing", best_torch.nullcontext)
    found = call("bench", path, *FAST, "--baseline", "best-torch", "--baseline", "torch", "--rounds", "1")
    assert "times as fast as the best of PyTorch" in found.stdout
    assert "times as fast as the authors' procedure by PyTorch" in found.stdout
    assert "did not run: float32, torch.compile with freezing, one view at a time: No compiler" in found.stdout
    assert "times as fast as the authors' eight views in PyTorch" in found.stdout


@pytest.mark.parametrize(("options", "threads"), [((), 5), (("--threads", "1"), 1)])
def test_pytorch_has_the_models_threads_whatever_it_had(tmp_path, monkeypatch, options, threads):
    import torch

    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=64, width=0.25))
    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr("dlink.bench.best_torch.freezing", nullcontext)
    monkeypatch.setattr("dlink.bench.opened.usable_cores", lambda: frozenset(range(5)))
    before = torch.get_num_threads()
    torch.set_num_threads(3)  # such as by OMP_NUM_THREADS
    try:
        found = as_json(path, *FAST, *options, "--baseline", "best-torch", "--baseline", "torch", "--rounds", "1")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    others = [found["baseline"]["other"], *(b["other"] for b in found["best_torch"][0]["beside"])]
    assert [f"{threads} threads" in other for other in others] == [True] * 3


def no_compiler(net, **options):
    def failing(x):
        raise RuntimeError("No compiler")

    return failing
