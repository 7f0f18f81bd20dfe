"""docs/what-runs-where.md says what has been done, no less and no more: it is held to the code where that can be."""

import json
import re

import pytest

from dlink.bench.gpu.aims import AIMS
from dlink.bench.gpu.stages import STAGES
from dlink.engine.build import build
from dlink.onnx_graph.model import read_model
from dlink.trt_runtime.manifest import Options
from tests.support.calibrated import QUIET, small
from tests.support.environments import ROOT
from tests.trt_runtime.test_kernels import ASSEMBLERS

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "what-runs-where.md").read_text()
STATES = re.findall(r"^- \*\*([\w ]+)\*\*: ", PAGE, re.MULTILINE)
API, ARRAYS = (
    json.loads((ROOT / "tests" / "support" / f"tensorrt_{name}.json").read_text()) for name in ("api", "arrays")
)


def table(heading):
    """The rows under a heading, by their first cell: their cells by the head of the column."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"
    ]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_every_row_has_one_of_the_four_states():
    rows = [row for heading in ("TensorRT", "Jetson", "Cards") for row in table(heading).values()]
    assert STATES == ["run", "built", "names only", "only read"]
    assert {row["state"] for row in rows} <= set(STATES)


def test_every_tensorrt_whose_names_are_recorded_has_a_row_that_says_so_and_no_other_has():
    said = {name for name, row in table("TensorRT").items() if row["state"] == "names only"}
    assert said == {".".join(version.split(".")[:2]) for version in API}


def test_the_page_says_which_bindings_were_seen_to_give_right_arrays():
    rows = table("NumPy 2")
    said = {name: row["gives, NumPy 2.0.2 and 2.4.6"] for names, row in rows.items() for name in names.split(", ")}
    seen = {v: "right" if row["gives"] == row["takes"] else "first value repeated" for v, row in ARRAYS.items()}
    assert said == {".".join(version.split(".")[:3]): words for version, words in seen.items()}


def test_a_jetpack_is_no_further_than_its_tensorrt():
    states = {name: row["state"] for name, row in table("TensorRT").items()}
    for name, row in table("Jetson").items():
        assert STATES.index(row["state"]) >= STATES.index(states[row["TensorRT"]]), name


def test_the_kernels_are_assembled_for_the_cards_of_which_the_page_says_so():
    said = {name for name, row in table("Cards").items() if row["kernels"] == "assembled"}
    assert said == {f"{sm // 10}.{sm % 10}" for _, cards in ASSEMBLERS.values() for sm in cards}


def test_the_cards_that_tensorrt_rtx_lists_are_the_pages_and_it_builds_for_each(tmp_path):
    rtx = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'dlink[test]' on Linux x86-64")
    rows = table("Cards")
    said = [name for name, row in rows.items() if row["TensorRT-RTX 1.7"] == "lists it"]
    assert [f"SM{name.replace('.', '')}" for name in said] == [
        n for n in rtx.ComputeCapability.__members__ if n[:2] == "SM"
    ]
    assert said == [name for name, row in rows.items() if row["state"] == "built"]
    graph = read_model(small("dlinknet34", tmp_path / "net.onnx", "fp16"))
    for capability in said:
        options = Options(target="tensorrt-rtx", compute_capability=(capability,))
        made = build(graph, tmp_path / "net.plan", options, None, QUIET)
        assert made.manifest.runs_on.capabilities == (capability,)


def test_stages_and_aims_are_those_of_the_scripts_for_a_gpu():
    said = re.findall(r"^(\d+)\. (.+)[;.]$", PAGE, re.MULTILINE)
    assert said == [(str(number), stage.title) for number, stage in STAGES.items()]
    rows = table("Aims that wait for a GPU").values()
    assert [(row["aim"], row["limit"], row["stage"]) for row in rows] == [
        (aim.name, aim.words(aim.limit), " or ".join(map(str, aim.stages))) for aim in AIMS
    ]


def test_no_aim_is_said_to_be_measured_of_which_there_is_no_figure():
    measured = [json.loads(line).get("aim") for line in (ROOT / "bench" / "results.jsonl").read_text().splitlines()]
    for name, row in table("Aims that wait for a GPU").items():
        assert (row["measured"] == "not run") is (name not in measured), name
