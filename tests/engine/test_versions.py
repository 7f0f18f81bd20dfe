"""One build for every TensorRT: what each is told, with the very names that its Python bindings have."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.export.test_export import SIDE
from tests.support.calibrated import quantise, run, scenes, small
from tests.support.fake_tensorrt import API
from tests.support.models import save

ROOT = Path(__file__).parents[2]
OLDEST, OLD = "8.5.2.2", "8.6.1"
NEW = [v for v in API if v not in (OLDEST, OLD)]
TYPED = "STRONGLY_TYPED"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("files")
    found = {p: small("dlinknet34", home / f"{p}.onnx", p) for p in ("fp32", "fp16")}
    for name, deconv in (("int8", "int8"), ("int8c", "conv")):
        found[name] = home / f"{name}.onnx"
        save(quantise(found["fp32"], deconv), found[name])
    return found


def told(version, source, folder, **given):
    """What a fake TensorRT of that version was told."""
    out = folder / "roads.plan"
    command = [sys.executable, "-m", "tests.support.fake_build", version, source, out, json.dumps(given)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def network_flags(version, said):
    names = [n for n in API[version]["classes"]["NetworkDefinitionCreationFlag"] if n.isupper()]
    return {n for i, n in enumerate(names) if said["network_flags"] >> i & 1}


@pytest.mark.parametrize("version", NEW)
def test_since_10_the_graph_is_strongly_typed_and_no_flag_says_a_precision(version, files, tmp_path):
    said = told(version, files["int8c"], tmp_path)
    assert TYPED in network_flags(version, said)
    assert not {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"} & set(said["flags"])
    assert said["precisions"] == {}
    assert said["manifest"]["precision"]["proven_by"] == "inspector"
    assert next(iter(said["manifest"]["precision"]["shares"])) == "int8"
    assert said["ticks"] == [100, 100]
    assert said["profile"] == ["image", [1, 3, SIDE, SIDE], [8, 3, SIDE, SIDE], [8, 3, SIDE, SIDE]]
    assert (tmp_path / "roads.parsed").read_bytes() == files["int8c"].read_bytes()


@pytest.mark.parametrize("version", [OLDEST, OLD])
def test_8_gets_flags_obeyed_constraints_and_weights_in_float(version, files, tmp_path):
    said = told(version, files["int8c"], tmp_path)
    assert network_flags(version, said) == {"EXPLICIT_BATCH"}
    assert {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"} <= set(said["flags"])
    assert set(said["precisions"].values()) == {"HALF"}
    assert "/finalconv3/Conv" in said["precisions"]
    assert "/encoder2/encoder2.0/conv1/Conv" not in said["precisions"]
    parsed = onnx.load(tmp_path / "roads.parsed")
    weights = [numpy_helper.to_array(i) for i in parsed.graph.initializer if len(i.dims) == 4]
    assert {w.dtype.name for w in weights} == {"float32", "float16"}


@pytest.mark.parametrize("version", API)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8c"])
def test_a_plan_reads_half_where_its_file_begins_with_a_cast_to_it(version, precision, files, tmp_path):
    said = told(version, files[precision], tmp_path)
    half = precision == "fp16"  # int8c begins with a QuantizeLinear of float32
    assert said["manifest"]["ends"] == {"reads": "float16" if half else "float32", "gives": "float32"}
    parsed = onnx.load(tmp_path / "roads.parsed").graph
    assert parsed.input[0].type.tensor_type.elem_type == (onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT)


def test_weights_in_float_are_the_same_network(files, tmp_path):
    told(OLD, files["int8c"], tmp_path)
    from dlink.runtime import Spec

    x = Spec(tile=SIDE).prepare(scenes(2).tiles[0].image[None])
    assert (run(tmp_path / "roads.parsed", x) == run(files["int8c"], x)).all()


@pytest.mark.parametrize(("precision", "flags"), [("fp32", set()), ("fp16", {"FP16"})])
def test_8_allows_no_precision_that_the_file_does_not_ask_for(precision, flags, files, tmp_path):
    assert set(told(OLD, files[precision], tmp_path)["flags"]) & {"FP16", "INT8"} == flags


@pytest.mark.parametrize("version", API)
def test_contexts_share_the_profile_where_that_must_be_asked_for(version, files, tmp_path):
    """8.6 has a preview feature for it, off by default, and 10 no other way; nothing else is turned on or off."""
    said = told(version, files["fp16"], tmp_path)
    assert said["previews"] == ({"PROFILE_SHARING_0806": True} if version == OLD else {})
    assert (tmp_path / "roads.plan").read_bytes()[28] == (version != OLDEST)


@pytest.mark.parametrize("version", [OLDEST, OLD, "10.0.1"])
def test_int8_transposed_convolutions_are_refused_where_their_scales_lie_along_another_axis(version, files, tmp_path):
    said = told(version, files["int8"], tmp_path)
    assert said["error"] == "BadInput"
    assert "--deconv conv" in said["words"]
    assert not list(tmp_path.iterdir())
    assert "manifest" in told("10.3.0", files["int8"], tmp_path)


@pytest.mark.parametrize("version", API)
@pytest.mark.parametrize("precision", ["fp16", "int8c"])
def test_float32_in_the_stead_of_what_was_asked_is_an_error(version, precision, files, tmp_path):
    said = told(version, files[precision], tmp_path, downgrade=True)
    assert said["error"] == "CheckFailed"
    assert "in FP32 (/" in said["words"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", API)
def test_every_option_of_a_version_is_one_of_its_names(version, files, tmp_path):
    given = {"max_tiles": 2, "workspace": 512, "refit": True, "timing_cache": str(tmp_path / "timing")}
    if version != OLDEST:
        given |= {"optimization_level": 5, "version_compatible": True, "hardware_compatible": True}
    if version in NEW:
        given["strip_weights"] = True
    said = told(version, files["fp16"], tmp_path, **given)
    compatible = {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"} if version != OLDEST else set()
    assert {"REFIT", *compatible} <= set(said["flags"])
    assert said["set"]["memory"] == str(("WORKSPACE", 512 << 20))
    assert said["set"].get("IBuilderConfig.builder_optimization_level") == ("5" if version != OLDEST else None)
    assert said["profile"][3][0] == 16
    where = {"capabilities": ["8.0"], "newer_gpus": True, "newer_versions": True, "unlisted_gpus": False}
    if version == OLDEST:
        where |= {"capabilities": ["8.7"], "newer_gpus": False, "newer_versions": False}
    assert said["manifest"]["runs_on"] == where
    assert (tmp_path / "timing").read_bytes() == b"measured"
    assert said["manifest"]["options"]["strip_weights"] == ("STRIP_PLAN" in said["flags"]) == (version in NEW)


def test_an_option_of_a_later_version_is_refused_by_name(files, tmp_path):
    said = told(OLD, files["fp16"], tmp_path, strip_weights=True)
    assert said["words"] == "--strip-weights: needs TensorRT 10.0, here is 8.6.1"
    said = told(OLDEST, files["fp16"], tmp_path, optimization_level=5)
    assert said["words"] == "--optimization-level: needs TensorRT 8.6, here is 8.5.2.2"
    said = told("10.3.0", files["fp16"], tmp_path, compute_capability=["8.6"])
    assert said["words"].startswith("--compute-capability: is for --target tensorrt-rtx; TensorRT builds for the GPU")
    said = told("10.3.0", files["fp16"], tmp_path, unlisted_gpu=True)
    assert said["words"].startswith("--unlisted-gpu: is for --target tensorrt-rtx; TensorRT builds for the GPU")


def test_a_plan_runs_on_the_gpu_it_was_built_on(files, tmp_path):
    manifest = told("10.3.0", files["fp16"], tmp_path)["manifest"]
    assert manifest["runs_on"]["capabilities"] == ["8.7"]
    built = {key: manifest["built"][key] for key in ("target", "version", "cuda", "gpu", "capability")}
    assert built == {"target": "tensorrt", "version": "10.3.0", "cuda": "12.6", "gpu": "Orin", "capability": "8.7"}


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """The network with 2:4 sparse weights."""
    home = tmp_path_factory.mktemp("sparse")
    found = {p: small("dlinknet34", home / f"{p}.onnx", p, sparse=True) for p in ("fp32", "fp16")}
    found["int8c"] = home / "int8c.onnx"
    save(quantise(found["fp32"], "conv"), found["int8c"])
    return found


@pytest.mark.parametrize(("version", "precision"), [(OLDEST, "fp16"), (OLD, "int8c"), *((v, "fp16") for v in NEW)])
def test_sparse_weights_are_a_flag_a_part_of_the_manifest_and_what_the_log_says(version, precision, sparse, tmp_path):
    said = told(version, sparse[precision], tmp_path, sparse=True)
    assert "SPARSE_WEIGHTS" in said["flags"]
    assert said["manifest"]["options"]["sparse"]
    title = f"TensorRT {version}"
    assert [note.split(": ")[0] for note in said["notes"]] == [f"of sparse kernels {title} says"] * 2
    assert said["notes"][1].endswith(
        "says: TRT inference plan picked sparse implementation for layers: /finalconv3/Conv"
    )


def test_a_rebuild_keeps_the_flag(sparse, tmp_path):
    (tmp_path / "fp16.onnx").write_bytes(sparse["fp16"].read_bytes())
    said = told("10.3.0", tmp_path / "fp16.onnx", tmp_path, sparse=True, rebuild=True)
    assert "SPARSE_WEIGHTS" in said["flags"]
    assert said["manifest"]["options"]["sparse"]


def test_without_the_option_no_flag_is_set_and_a_note_names_it(sparse, files, tmp_path):
    said = told("10.3.0", sparse["fp16"], tmp_path)
    assert "SPARSE_WEIGHTS" not in said["flags"]
    assert not said["manifest"]["options"]["sparse"]
    (note,) = said["notes"]
    assert re.fullmatch(
        r"2:4 sparse: \d\d\.\d% of the multiply-adds; --sparse lets TensorRT take sparse kernels .*", note
    )
    assert told("10.3.0", files["fp16"], tmp_path)["notes"] == []
    assert told("8.5.2.2", sparse["fp16"], tmp_path, gpu=["Xavier", "7.2"])["notes"] == []


def test_weights_that_are_not_sparse_and_gpus_that_gain_nothing_are_refused(sparse, files, tmp_path):
    def words(source, **given):
        said = told("10.3.0", source, tmp_path, sparse=True, **given)
        assert (said["error"], list(tmp_path.iterdir())) == ("BadInput", [])
        return said["words"]

    assert words(files["fp16"]) == (
        "fp16.onnx: --sparse: only 0.0% of the multiply-adds have 2:4 sparse weights; make them, and export again: "
        "dlink-slim CHECKPOINT TILES -o sparse.th --sparse"
    )
    assert words(sparse["fp32"]).startswith(
        "fp32.onnx: --sparse: TensorRT has sparse kernels for FP16 and INT8; export"
    )
    assert words(sparse["fp16"], gpu=["Xavier", "7.2"]).startswith(
        "--sparse: needs compute capability 8.0 or newer, here"
    )
    assert words(sparse["fp16"], target="tensorrt-rtx").startswith(
        "--sparse: is for --target tensorrt; TensorRT-RTX 1.7"
    )
