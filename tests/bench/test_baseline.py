"""An earlier result beside a new one: which are like, and the conditions of a user's CI."""

import json

import pytest

from dlink.bench.baseline import UNLIKE, read_baseline, unlike
from dlink.bench.conditions import Condition, Planned, check_possible, hold
from dlink.bench.metrics import LATENCY, METRICS, RATE, SOAK
from dlink.runtime import BadInput


def row(views, p99, **values):
    return {"views": views, "p50_ms": p99 / 2, "p99_ms": p99, "joules_per_tile": None, **values}


HOW = {"threads": 2, "slots": 1, "halo": 64, "gsd_m": 0.5, "soak_s": None, "scout": None}
SCOUT = {"sha256": "cc", "arch": "dlinknet34", "width": 0.25, "precision": "int8"}


def how(**values):
    return {**HOW, **values}


def result(*rows, **values):
    """A result of dlink-bench with these rows."""
    return {
        "file": {"name": "roads.onnx", "sha256": "aa"},
        "network": {"arch": "dlinknet34", "width": 1.0, "tile": 1024, "precision": "fp16"},
        "engine": "OpenVINO 2026.4.1, bf16, 2 threads",
        "tiles": "generated",
        "latency": list(rows),
        "peak_bytes": 500_000_000,
        "machine": {"cpu": "AMD EPYC", "cores": 2, "versions": {"dlink": "0.1.0"}},
        "how": HOW,
        **values,
    }


def held(condition, new, old=None):
    found, missing = hold([Condition.of(condition)], new, old)
    assert missing == []
    return found


@pytest.mark.parametrize(
    ("condition", "p99", "failed"),
    [
        ("p99>2x", 200.0, False),  # the limit itself is allowed
        ("p99>1.1x", 110.2, True),
        ("p99<0.9x", 89, True),
        ("p99 > 0.12 s", 119, False),
        ("p99>120ms", 121, True),
        ("p99<50ms", 49, True),
    ],
)
def test_a_condition_fails_beyond_its_limit(condition, p99, failed):
    [found] = held(condition, result(row(1, p99)), result(row(1, 100.0)))
    assert found.failed is failed


def test_a_condition_holds_for_each_row_beside_the_baselines_row_of_as_many_views():
    found = held("p99>1.5x", result(row(1, 10), row(8, 90)), result(row(8, 50), row(1, 9)))
    assert [(each.row, each.value, each.before, each.failed) for each in found] == [
        ("1 view", 10, 9, False),
        ("8 views", 90, 50, True),
    ]
    assert str(found[1]) == "p99>1.5x: p99 with 8 views is 90 ms, 1.8 times the baseline's 50 ms"


def test_an_absolute_condition_needs_no_baseline():
    [found] = held("peak>0.4GB", result(row(1, 10)))
    assert str(found) == "peak>0.4GB: peak with 1 view is 500 MB"
    assert found.failed


def test_rates_and_soaks_are_held_to_their_own_rows():
    rate = row(1, 80, rate=10.0, dropped_share=0.25)
    soak = {
        "views": 1, "rate": None, "first": {"p99_ms": 70, "p50_ms": 60}, "last": {"p99_ms": 77, "p50_ms": 60},
        "p99_change": 1.1, "memory": {"bytes_per_h": 3e6}, "gpu_memory": None,
    }  # fmt: skip
    new = result(rate=[rate], soak=soak)
    assert [each.failed for each in held("dropped>20%", new)] == [True]
    assert [each.failed for each in held("p99_change>1.05", new)] == [True]
    assert [each.failed for each in held("memory_growth>2MB", new)] == [True]
    [growth] = held("memory_growth>2MB", new, result(soak={**soak, "memory": {"bytes_per_h": -1e3}}))
    assert str(growth) == "memory_growth>2MB: memory_growth with 1 view is 3 MB"
    before = result(rate=[{**rate, "p99_ms": 40}], soak=soak)
    assert [(e.row, e.failed) for e in held("p99>1.5x", new, before)] == [
        ("1 view, 10 frames a second", True),
        ("1 view", False),
    ]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("p99", "must be a figure, > or <, and a limit, such as p99>1.1x"),
        ("p99>=1.1x", "must be a figure, > or <"),
        ("p95>1x", "no figure p95; there are p50, p90, p99"),
        ("p99>1.1", "the unit of p99 is ms or s or x, got none"),
        ("p99>1GB", "the unit of p99 is ms or s or x, got GB"),
        ("memory_growth>1.1x", "growth may be 0 or negative, so a multiple .*; give a limit an hour, such as"),
        ("gpu_memory_growth<2x", "growth may be 0 or negative, .* such as gpu_memory_growth>2MB"),
        ("memory_growth>1ms", "the unit of memory_growth is B or kB or MB or GB, got ms"),
    ],
)
def test_what_is_no_condition_is_one_line(condition, words):
    with pytest.raises(BadInput, match=f"^--fail-if {condition}: {words}"):
        Condition.of(condition)


@pytest.mark.parametrize(
    ("condition", "new", "old", "words"),
    [
        ("p99>1.1x", result(row(1, 10)), None, "needs --baseline FILE"),
        ("joules>1J", result(row(1, 10)), None, "this run has no joules of 1 view"),
        ("p99>1.1x", result(row(8, 10)), result(row(1, 10)), "the baseline has no p99 of 8 views"),
        (
            "joules>2x",
            result(row(1, 10, joules_per_tile=3)),
            result(row(1, 10)),
            "the baseline has no joules of 1 view",
        ),
        (
            "p99>1.1x",
            result(rate=[row(1, 10, rate=10.0)]),
            result(rate=[row(1, 10, rate=5.0)]),
            "the baseline has no p99 of 1 view, 10 frames a second",
        ),
    ],
)
def test_a_figure_that_is_not_there_is_no_pass_and_is_said(condition, new, old, words):
    found, [missing] = hold([Condition.of(condition)], new, old)
    assert found == []
    assert missing.startswith(f"--fail-if {condition}: {words}")


def test_a_figure_that_one_row_lacks_is_said_beside_the_others():
    new = result(row(1, 10, joules_per_tile=3), row(8, 90))
    found, missing = hold([Condition.of("joules>1J")], new, None)
    assert [each.row for each in found] == ["1 view"]
    assert missing == ["--fail-if joules>1J: this run has no joules of 8 views"]


ONE = {"views": 1, "rate": None, "soak": False}


@pytest.mark.parametrize(
    ("condition", "planned", "words"),
    [
        (
            "max>1s",
            {**ONE, "soak": True},
            "a run with --soak has no max; a run of one tile .* and a run with --rate has",
        ),
        ("p90>1s", {**ONE, "soak": True, "rate": 5.0}, "a run with --soak has no p90"),
        ("dropped>1%", ONE, "a run of one tile after the other has no dropped; a run with --rate has it"),
        ("tiles_per_s<1", {**ONE, "rate": 5.0}, "a run with --rate has no tiles_per_s"),
        ("memory_growth>1MB", ONE, "a run of one tile after the other has no memory_growth"),
        ("p99>1.1x", {**ONE, "views": 8}, "the baseline has no p99 of 8 views; measure it again"),
        ("p99>1.1x", {**ONE, "rate": 5.0}, "the baseline has no p99 of 1 view, 5 frames a second"),
        ("joules>1.1x", ONE, "the baseline has no joules of 1 view"),
        ("km2_per_h<1", ONE, "the ground is not known with --gsd native"),
        ("gpu_memory_growth>1MB", {**ONE, "soak": True}, "is for plans, which a GPU runs"),
    ],
)
def test_what_a_run_can_never_have_is_refused_before_it(condition, planned, words):
    planned = Planned((planned,), ground=False)
    with pytest.raises(BadInput, match=f"^--fail-if {condition}: {words}"):
        check_possible([Condition.of(condition)], planned, result(row(1, 10)))


def test_what_a_run_can_have_is_not_refused():
    texts = ("p99>1.1x", "joules>1J", "km2_per_h<3", "peak>1GB")
    check_possible([Condition.of(text) for text in texts], Planned((ONE,)), result(row(1, 10)))
    check_possible([Condition.of("gpu_memory_growth>1MB")], Planned(({**ONE, "soak": True},), gpu=True), None)


def test_a_multiple_of_nothing_is_refused():
    old = result(rate=[row(1, 10, rate=5.0, dropped_share=0.0)])
    with pytest.raises(BadInput, match="the baseline's dropped of 1 view, 5 frames a second is 0, and so is every"):
        check_possible([Condition.of("dropped>1.1x")], Planned(({**ONE, "rate": 5.0},)), old)


DIFFERENT = {
    "engine": result(engine="TensorRT 10.3"),
    "precision": result(network={"arch": "dlinknet34", "width": 1.0, "tile": 1024, "precision": "int8"}),
    "tile": result(network={"arch": "dlinknet34", "width": 1.0, "tile": 512, "precision": "fp16"}),
    "network": result(network={"arch": "dlinknet34", "width": 0.25, "tile": 1024, "precision": "fp16"}),
    "pictures": result(tiles="valid"),
    "machine": result(machine={"cpu": "AMD EPYC", "cores": 4, "versions": {"dlink": "0.1.0"}}),
    "threads": result(how=how(threads=1)),
    "scout": result(how=how(scout=SCOUT)),
    "gsd": result(how=how(gsd_m=None)),
    "slots": result(how=how(slots=2)),
    "halo": result(how=how(halo=0)),
    "soak": result(how=how(soak_s=7200)),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_makes_figures_unlike_is_refused_unless_it_is_allowed(tmp_path, name):
    path = tmp_path / "old.json"
    with pytest.raises(BadInput, match=f"old.json: cannot be compared: its {name} is .*; --allow {name} compares"):
        unlike(result(), DIFFERENT[name], path, [n for n in UNLIKE if n != name])
    assert any(
        note.startswith(f"another {name} than the baseline's")
        for note in unlike(result(), DIFFERENT[name], path, [name])
    )


def test_what_one_compares_is_said_and_not_refused(tmp_path):
    old = result(
        file={"name": "old.onnx", "sha256": "bb"},
        engine="OpenVINO 2025.1.0, bf16, 2 threads",
        machine={"cpu": "AMD EPYC", "cores": 2, "versions": {"dlink": "0.0.9"}},
        headline=False,
        no_headline=["other processes took 40%"],
    )
    assert unlike(result(), old, tmp_path, []) == [
        "another file than the baseline's bb",
        "another version of the engine than the baseline's OpenVINO 2025.1.0, bf16, 2 threads",
        "another version of dlink than the baseline's 0.0.9",
        "the baseline is no headline: other processes took 40%",
    ]


def refused(new, old, tmp_path):
    with pytest.raises(BadInput) as e:
        unlike(new, old, tmp_path / "old.json", [])
    return str(e.value)


def test_soaks_of_about_the_same_length_are_alike(tmp_path):
    short, long, about = (result(how=how(soak_s=seconds)) for seconds in (4, 7200, 4.3))
    assert "its soak is 7200 s, this run's is 4 s; --allow soak" in refused(short, long, tmp_path)
    assert "its soak is none, this run's is 4 s; --allow soak" in refused(short, result(), tmp_path)
    assert unlike(short, about, tmp_path, []) == []


def test_a_scout_that_was_calibrated_again_is_said_and_another_network_refused(tmp_path):
    new = result(how=how(scout=SCOUT))
    assert unlike(new, result(how=how(scout={**SCOUT, "sha256": "dd"})), tmp_path, []) == [
        "another scout's file than the baseline's dd"
    ]
    other = result(how=how(scout={**SCOUT, "width": 0.5}))
    assert "its scout is dlinknet34 width 0.5, int8, this run's is dlinknet34 width 0.25, int8" in refused(
        new, other, tmp_path
    )


def test_what_an_older_file_does_not_say_is_a_note_and_what_its_engine_says_counts(tmp_path):
    note = "the baseline does not say its gsd, slots, halo, and that may differ"
    assert unlike(result(), without("how"), tmp_path, []) == [note]
    one = result(engine="OpenVINO 2026.4.1, bf16, 1 threads")
    del one["how"]
    assert "its threads is 1, this run's is 2" in refused(result(), one, tmp_path)
    soaked = {**without("how"), "soak": {**SOAK_RUN, "seconds": 7201.5}}
    assert "its soak is 7201.5 s, this run's is 4 s" in refused(result(how=how(soak_s=4)), soaked, tmp_path)
    scouted = result(engine="OpenVINO 2026.4.1, bf16, 2 threads; scout: OpenVINO 2026.4.1, bf16, 2 threads")
    del scouted["how"]
    assert "its scout is a scout that the file does not describe, this run's is none" in refused(
        result(), scouted, tmp_path
    )
    [first, *_] = unlike(result(how=how(scout=SCOUT)), scouted, tmp_path, [])
    assert first == "the baseline does not say its scout, gsd, slots, halo, and that may differ"


def test_like_results_need_no_word(tmp_path):
    assert unlike(result(), result(headline=True), tmp_path, []) == []


def test_the_last_result_of_a_file_of_rows_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(result(row(1, p99))) for p99 in (1, 2)]
    path.write_text("\n".join([*lines, '{"figure": "slots"}', lines[0][:50]]) + "\n")
    assert read_baseline(path)["latency"][0]["p99_ms"] == 2


def test_the_whole_result_of_json_counts(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(result(row(1, 3)), indent=1))
    assert read_baseline(path)["latency"][0]["p99_ms"] == 3


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b'{"figure": "slots"}\n', b"\xff\xfe", b"p99 50 ms"])
def test_a_file_without_a_result_is_named(tmp_path, content):
    path = tmp_path / "old.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"old.json: (has no|not a) result of dlink-bench"):
        read_baseline(path)


def without(name, of=None):
    """A result that lacks a part, of which `of` is the holder."""
    whole = result(row(1, 3))
    del (whole[of] if of else whole)[name]
    return whole


SOAK_RUN = {"views": 1, "seconds": 4.0, "last": {"p50_ms": 1, "p99_ms": 2}, "memory": None, "gpu_memory": None}


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (result(latency=None), "its latency is missing"),
        (result(latency={}), "its latency is {}"),
        (result(3), "it has a row 3"),
        (without("arch", "network"), "its network.arch is missing"),
        (without("machine"), "its machine.cpu is missing"),
        (result(machine="ours"), "its machine.cpu is missing"),
        (result(network={"arch": "dlinknet34", "width": "1", "tile": 64, "precision": "fp16"}), "network.width is '1'"),
        (without("sha256", "file"), "its file.sha256 is missing"),
        (without("engine"), "its engine is missing"),
        (result(row(1, 3, p99_ms="3 ms")), "the p99_ms of a row is '3 ms'"),
        (result(row(1, 3, p99_ms=True)), "the p99_ms of a row is True"),
        (result(row(1, 3, max_ms=10**400)), "the max_ms of a row is 1000"),
        (result({"p99_ms": 3}), "the views of a row is missing"),
        (result(row(1, 3), peak_bytes="much"), "the peak_bytes of a row is 'much'"),
        (result(rate=7), "its rate is 7"),
        (result(soak=[1]), r"its soak is \[1\]"),
        (result(soak={**SOAK_RUN, "last": None}), "its soak.last.p50_ms is missing"),
        (result(soak={**SOAK_RUN, "memory": "1 MB"}), "its soak.memory is '1 MB'"),
        (result(soak={**SOAK_RUN, "memory": {"bytes_per_h": "1"}}), "the memory_bytes_per_h of a row is '1'"),
        (result(how="fast"), "its how is 'fast'"),
        (result(how=how(threads="two")), "its how.threads is 'two'"),
        (result(how=how(scout={"arch": "dlinknet34"})), "its how.scout.sha256 is missing"),
        (result(soak={**SOAK_RUN, "seconds": None}), "its soak.seconds is missing"),
        (result(row(1, 3), no_headline="busy"), "its no_headline is 'busy'"),
    ],
)
def test_a_damaged_result_is_one_line_that_names_the_file(tmp_path, damaged, words):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(damaged))
    with pytest.raises(BadInput, match=f"old.json: is no whole result of dlink-bench: .*{words}.*; measure it again"):
        read_baseline(path)


def test_results_of_earlier_versions_can_be_a_baseline():
    from tests.support.environments import ROOT

    old = read_baseline(ROOT / "bench" / "results.jsonl")
    assert [each.before for each in held("p50>1x", {**old}, old)] == [r["p50_ms"] for r in old["latency"]]


def test_every_figure_of_a_run_has_its_name_and_is_of_the_runs_that_have_it():
    from dataclasses import fields

    from dlink.bench.latency import Latency
    from dlink.bench.open_loop import RateFigures
    from dlink.bench.soak import SoakFigures

    growth = {"memory_bytes_per_h", "gpu_memory_bytes_per_h"}
    for run, kind, more in (
        (LATENCY, Latency, set()),
        (RATE, RateFigures, set()),
        (SOAK, SoakFigures, {"p50_ms", "p99_ms"} | growth),  # of its last minute
    ):
        keys = {f.name for f in fields(kind)} | more | {"peak_bytes"}
        known = {metric.key for metric in METRICS.values()}
        assert {metric.key for metric in METRICS.values() if run in metric.runs} == keys & known
