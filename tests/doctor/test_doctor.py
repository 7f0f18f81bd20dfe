"""What can be done on a computer, and the command that says it."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from dlink.doctor.extras import EXTRAS, NEEDS
from tests.support.computers import ABSENT, HERE, LAPTOP, MACHINE, abilities_of, rows_of, without


def test_with_numpy_alone_all_else_is_missing_and_nothing_can_be_done():
    here = {"numpy": "2.4.6"}
    states = {name: row.state for name, row in rows_of(here, LAPTOP, ABSENT).items()}
    assert [name for name, state in states.items() if state != "missing"] == ["Python", "numpy"]
    assert not any(a.can for a in abilities_of(here, LAPTOP, ABSENT).values())


def test_with_everything_everything_can_be_done():
    assert all(a.can for a in abilities_of(HERE).values())


@pytest.mark.parametrize(
    ("lost", "unable", "words"),
    [
        ("onnx", "export a checkpoint", "ONNX missing"),
        ("onnxruntime", "make INT8 files", "ONNX Runtime missing"),
        ("shapely", "score roads", "shapely missing"),
        ("safetensors", "train a network", "safetensors missing"),
        ("rasterio", "read rasters", "rasterio missing"),
        ("osmium", "draw OpenStreetMap", "osmium missing"),
        ("distributed", "make maps on a Dask cluster", "Dask missing"),
        ("ray", "make maps on a Ray cluster", "Ray missing"),
        ("av", "follow live video", "PyAV missing"),
        ("pymavlink", "take a vehicle's MAVLink", "pymavlink missing"),
        ("polygraphy", "build TensorRT plans", "Polygraphy missing"),
        ("cryptography", "sign plans", "cryptography missing"),
    ],
)
def test_an_ability_says_what_it_lacks(lost, unable, words):
    found = abilities_of(without(lost))[unable]
    assert (found.can, found.words) == (False, words)


def test_the_abilities_are_those_of_the_extras():
    assert list(abilities_of(HERE)) == list(dict.fromkeys(extra.can for extra in EXTRAS.values() if extra.can))


def test_what_can_be_done_does_not_hang_on_what_is_fetched_alone():
    assert abilities_of(without("osmnx"))["draw OpenStreetMap"].can


def test_without_tensorrt_no_plan_is_built_or_run():
    abilities = abilities_of(without("tensorrt"))
    assert [a.words for a in abilities.values() if not a.can] == ["TensorRT missing", "TensorRT missing"]


def test_tensorrt_rtx_does_for_tensorrt():
    here = {**without("tensorrt"), "tensorrt-rtx": "1.7.1.116"}
    assert abilities_of(here)["build TensorRT plans"].words == "by TensorRT-RTX"
    assert abilities_of(here)["run TensorRT plans"].can


def test_plans_need_a_gpu_but_tensorrt_rtx_builds_them_without():
    assert "GPU missing" in abilities_of(HERE, LAPTOP)["run TensorRT plans"].words
    assert "GPU missing" in abilities_of(HERE, LAPTOP)["build TensorRT plans"].words
    here = {**HERE, "tensorrt-rtx": "1.7.1.116"}
    assert abilities_of(here, LAPTOP)["build TensorRT plans"].can
    assert not abilities_of(here, LAPTOP)["run TensorRT plans"].can


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (("avx512_bf16", "avx512_vnni"), "fast in reduced precision: bfloat16 and int8 (avx512_bf16, avx512_vnni)"),
        ((), "in float32; reduced precision is no faster"),
    ],
)
def test_the_cpus_reduced_precision_is_said(features, words):
    assert abilities_of(HERE, replace(MACHINE, features=features))["run on the CPU"].words == words


def run_doctor(*options):
    code = "from dlink.cli.doctor import doctor; doctor()"
    return subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)


def test_the_command_prints_every_row_and_exits_with_0():
    done = run_doctor()
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("Python", *(need.name for need in NEEDS), "GPU", "driver", "run on the CPU"):
        assert re.search(rf"^{name} ", done.stdout, re.MULTILINE), name


def test_json_has_the_machine_the_rows_and_the_abilities():
    values = json.loads(run_doctor("--json").stdout)
    assert list(values) == ["machine", "rows", "abilities"]
    assert {row["name"]: row["state"] for row in values["rows"]}["numpy"] == "found"
