"""The conditions of a user's CI: what they hold, what is missing, and what can never be."""

import pytest

from dlink.bench.conditions import Condition, Planned, check_possible, hold
from dlink.bench.metrics import LATENCY, METRICS, RATE, SOAK
from dlink.runtime import BadInput
from tests.support.results import result, row


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
