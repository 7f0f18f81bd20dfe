import json

import pytest

from dlink.accuracy.agreement import Agreement, Setting
from dlink.accuracy.bootstrap import Estimate
from dlink.accuracy.gates import GateLimits, Verdict, limits_of
from dlink.accuracy.iou import IoU
from dlink.runtime import BadInput


def verdict(limits, *, tiles=14, labelled=14, label_road=100, **estimates):
    """Of a figure and an interval for each gate, such as iou=(0.001, -0.01, 0.012)."""
    found = {"agreement": (1.0, 1.0, 1.0), "iou": (0.0, 0.0, 0.0)} | estimates
    setting = Setting(
        views=8,
        agreement=found["agreement"][0],
        worst=0.5,
        worst_tile="a",
        max_difference=0.0,
        candidate=IoU(0.5, 0.5),
        reference=IoU(0.5, 0.5),
        estimates={name: Estimate(*values, tiles) for name, values in found.items()},
    )
    return Verdict(Agreement(tiles, labelled, label_road, (setting,)), limits)


ALL = GateLimits(max_iou_drop=0.005, min_agreement=0.99, max_apls_drop=0.01, max_broken_rise=0.5)


def test_the_figure_decides_and_not_the_interval():
    held = verdict(GateLimits(0.005, 0.99), iou=(0.005, -0.1, 0.1), agreement=(0.99, 0.5, 1.0))
    assert held.why == []


@pytest.mark.parametrize(
    ("estimates", "doubt"),
    [
        ({"iou": (0.0002, -0.004, 0.012)}, "an IoU drop of 0.012"),
        ({"agreement": (0.995, 0.9612, 0.999)}, "an agreement of 0.961"),
        ({"apls": (0.0, -0.1, 0.0312)}, "an APLS drop of 0.0312"),
        ({"broken": (0.1, -0.2, 0.75)}, "0.75 more broken links a km"),
    ],
)
def test_what_the_interval_reaches_beyond_the_limit_is_said(estimates, doubt):
    limits = GateLimits(0.005, 0.99, 0.01 if "apls" in estimates else None, 0.5 if "broken" in estimates else None)
    found = verdict(limits, **estimates)
    assert found.why == []
    assert found.doubts == [f"held, but 14 tiles cannot rule out {doubt} with 8 views"]


def test_an_interval_within_the_limit_leaves_no_doubt():
    assert verdict(GateLimits(0.005, 0.99), iou=(0.001, -0.1, 0.005), agreement=(0.995, 0.99, 1.0)).doubts == []


def test_one_tile_says_nothing_of_others():
    found = verdict(GateLimits(0.005, 0.99), tiles=1, iou=(0.0, None, None), agreement=(1.0, 1.0, 1.0))
    assert found.doubts[-1] == "held, but one tile says nothing of others with 8 views"


@pytest.mark.parametrize(
    ("estimates", "why"),
    [
        ({"apls": (0.0101, 0, 0.1)}, "APLS drops by 0.0101 with 8 views, more than 0.01"),
        ({"broken": (0.75, 0, 1)}, "broken links a km rise by 0.75 with 8 views, more than 0.5"),
        ({"broken": (None, None, None)}, "no roads in the labels of 14 tiles with 8 views: give tiles with roads"),
    ],
)
def test_a_gate_on_graphs_that_is_missed_says_why(estimates, why):
    found = verdict(ALL, **{"apls": (0, 0, 0), "broken": (0, 0, 0)} | estimates)
    assert (found.why, found.doubts) == ([why], [])


def test_a_gate_that_was_not_measured_is_not_held():
    assert verdict(ALL).why[0].startswith("no roads in the labels")


def test_without_labels_the_agreement_alone_is_looked_at():
    assert [o.gate.name for o in verdict(ALL, labelled=0).outcomes] == ["agreement"]


def test_json_has_plain_values_with_every_gate():
    values = json.loads(json.dumps(verdict(GateLimits(0.005, 0.99), iou=(0.0002, -0.004, 0.012)).to_json()))
    assert (values["same"], values["why"]) == (True, [])
    assert values["limits"] == {"max_iou_drop": 0.005, "min_agreement": 0.99}
    words = "held, but 14 tiles cannot rule out an IoU drop of 0.012 with 8 views"
    assert values["doubts"] == [words]
    assert values["gates"][1] == {
        "gate": "iou",
        "views": 8,
        "limit": 0.005,
        "held": True,
        "value": 0.0002,
        "low": -0.004,
        "high": 0.012,
        "tiles": 14,
        "words": words,
    }
    assert values["agreement"]["settings"][0]["estimates"]["iou"]["high"] == 0.012


def test_limits_are_read_from_words():
    assert limits_of(["iou=0.003, apls=0.01", "broken=2"]) == {
        "max_iou_drop": 0.003,
        "max_apls_drop": 0.01,
        "max_broken_rise": 2.0,
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("aple=0.01", "there is no gate 'aple'; there are agreement, iou, apls, broken"),
        ("", "there is no gate ''"),
        ("iou", "iou needs a number, such as iou=0.01, got ''"),
        ("iou=much", "iou needs a number, such as iou=0.01, got 'much'"),
        ("agreement=97", "agreement must be from 0 to 1, such as agreement=0.98, got 97"),
        ("iou=nan", "iou must be from 0 to 1"),
        ("broken=-1", "broken must be 0 or more"),
        ("broken=inf", "broken must be 0 or more"),
        ("iou=0.1,iou=0.2", "iou is given twice"),
    ],
)
def test_words_that_are_no_limits_are_refused(words, said):
    with pytest.raises(BadInput, match=f"--gate {words}.*{said}"):
        limits_of([words])
