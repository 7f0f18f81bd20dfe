"""An earlier result beside a new one: which are like, and what is no result."""

import json

import pytest

from dlink.bench.baseline import UNLIKE, read_baseline, unlike
from dlink.bench.conditions import Condition, hold
from dlink.runtime import BadInput
from tests.support.results import SCOUT, SOAK_RUN, how, result, row

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
    held, missing = hold([Condition.of("p50>1x")], old, old)
    assert missing == []
    assert [each.before for each in held] == [r["p50_ms"] for r in old["latency"]]
