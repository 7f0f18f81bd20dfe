"""Which layers are reverted where speed comes first: most error for each millisecond, and no more than needed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlink.calib.calibrate import CalibrationOptions, Cost, Work, cheapest_first, useful
from dlink.calib.evaluator import HoldoutLimits, Score
from dlink.calib.network import read_network
from dlink.calib.placement import FP16, INT8, SPEED, Unit, place
from dlink.openvino_runtime.timing import Timed, slower
from tests.support.calibrated import scenes

COSTS = st.lists(st.tuples(st.floats(-0.1, 1), st.floats(-1e-3, 1e-2)), max_size=20)


def unit(number, share=0.1):
    return Unit(f"layer{number}", f"/layer{number}", "Conv", share, INT8, "")


@given(costs=COSTS)
def test_layers_are_reverted_by_their_error_for_each_second(costs):
    order = cheapest_first([Cost(at, error, seconds) for at, (error, seconds) in enumerate(costs)])
    assert sorted(cost.at for cost in order) == list(range(len(costs)))
    wins = [cost.error > 0 for cost in order]
    assert wins == sorted(wins, reverse=True)  # a layer that takes no error back comes last
    least = 1e-3 * sum(max(seconds, 0.0) for _, seconds in costs)
    prices = [cost.error / max(cost.seconds, least, 1e-9) for cost in order if cost.error > 0]
    assert prices == sorted(prices, reverse=True)


def test_a_layer_that_int8_makes_slower_is_reverted_first():
    order = cheapest_first([Cost(0, 0.5, 1e-3), Cost(1, 0.01, -2e-3), Cost(2, 0.0, -1e-3)])
    assert [cost.at for cost in order] == [1, 0, 2]


def test_so_many_layers_may_be_reverted_that_half_of_the_operations_stay():
    units = [unit(0, 0.2), unit(1, 0.3), unit(2, 0.1), unit(3, 0.4)]
    order = [Cost(at, 0.1, 1e-3) for at in (0, 1, 2, 3)]
    assert useful(units, order) == 2
    assert useful(units, order[:1]) == 1 and useful(units, []) == 0


def work_with(units, costs, enough, roads=()):
    """A Work whose masks agree well once the layers `enough` are all float; `roads` are where roads come first."""

    class Made(Work):
        def __init__(self):
            self.units, self.how, self.tried = units, CalibrationOptions(limits=HoldoutLimits()), []
            self.roads = [u.reverted("roads") if at in roads else u for at, u in enumerate(units)]
            self.ranked = []

        def write(self, method, units):
            return units

        def costs(self, evaluator, method, units, ranked, tick):
            self.ranked += ranked
            return [cost for cost in costs if cost.at in ranked]

    made = Made()

    def score(units, views=(1, 8)):
        made.tried.append([at for at, u in enumerate(units) if u.precision == FP16])
        agreement = 0.999 if enough <= set(made.tried[-1]) else 0.98
        return [Score(v, None, None, None, None, None, agreement, 0.01) for v in views]

    return made, SimpleNamespace(score=score)


@pytest.mark.parametrize("enough", [set(), {3}, {3, 1}, {3, 1, 0, 2}])
def test_no_more_layers_are_reverted_than_the_masks_need(enough):
    units = [unit(i, 0.05) for i in range(4)] + [unit(9, 0.8)]
    costs = [Cost(at, error, 1e-3) for at, error in ((0, 0.2), (1, 0.3), (2, 0.1), (3, 0.4))]
    work, evaluator = work_with(units, costs, enough)
    found, scores = work.fastest(evaluator, "max", lambda *_: None)
    assert {at for at, u in enumerate(found) if u.precision == FP16} == enough
    assert scores[0].agreement == 0.999 and len(work.tried) <= 5
    assert all("of the error for 1.00 ms" in found[at].why for at in enough)


@pytest.mark.parametrize(("roads", "ranked"), [({0, 1, 3}, [0, 1, 3]), ({0, 1}, [0, 1, 2, 3, 4])])
def test_only_layers_that_often_cost_roads_are_ranked_where_these_are_enough(roads, ranked):
    units = [unit(i, 0.05) for i in range(4)] + [unit(9, 0.8)]
    costs = [Cost(at, error, 1e-3) for at, error in ((0, 0.2), (1, 0.3), (2, 0.1), (3, 0.4), (4, 0.0))]
    work, evaluator = work_with(units, costs, {3}, roads)
    found, _ = work.fastest(evaluator, "max", lambda *_: None)
    assert work.ranked == ranked
    assert [at for at, u in enumerate(found) if u.precision == FP16] == [3]


def test_where_no_fast_placement_agrees_there_is_none():
    units = [unit(i, 0.25) for i in range(4)]
    work, evaluator = work_with(units, [Cost(at, 0.1, 1e-3) for at in range(4)], {0, 1, 2, 3})
    assert work.fastest(evaluator, "max", lambda *_: None) is None


def test_where_speed_is_preferred_the_ends_and_the_fine_skips_are_int8(fp32):
    graph = read_network(fp32)
    fast = {u.name: u.precision for u in place(graph, "int8", (), SPEED)}
    assert fast["finalconv3"] == fast["firstconv"] == INT8
    assert {u.precision for u in place(graph, "int8", (), SPEED) if u.op == "Add" and "1/4" in u.why} == set()
    kept = {u.name: u.precision for u in place(graph, "int8", ["finalconv3"], SPEED)}
    assert kept["finalconv3"] == FP16


def test_layers_are_timed_and_the_same_file_is_as_fast_as_itself(fp32):
    first, second = Timed(fp32), Timed(fp32)
    tile = scenes(2).tiles[0].image[None]
    for timed in (first, second):
        timed.backend.probabilities(tile, (0,))
        assert sum(timed.seconds.values()) > 0
        assert any(kind in ("Convolution", "Deconvolution") for _, kind, *_ in timed.seconds)
    assert slower(first.seconds, second.seconds) == 0.0
    name = next(iter(first.seconds))
    assert slower(first.seconds, {**first.seconds, ("new", *name[1:]): 2.0}) == 2.0


def test_whoever_gives_a_limit_gets_the_fastest_file_that_holds_it():
    scores = [Score(v, None, None, None, None, None, 0.98, 0.01) for v in (1, 8)]
    assert HoldoutLimits().held(scores) and not HoldoutLimits().good(scores)
    assert HoldoutLimits(min_agreement=0.98).good(scores)
    assert not HoldoutLimits(min_agreement=0.981).good(scores)
    assert not HoldoutLimits(min_agreement=0.0).good([replace(scores[0], drop=0.006)])
