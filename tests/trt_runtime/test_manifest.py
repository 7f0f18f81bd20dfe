"""Manifests: written and read back, and nothing else taken for one."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlink.runtime import BadPlan
from dlink.trt_runtime.manifest import (
    MOST_BYTES,
    Manifest,
    Options,
    RunsOn,
    capability_of,
    manifest_of,
    parse,
    read_bytes,
)
from dlink.trt_runtime.plan import made_by
from tests.support.plans import COMMAND, MANIFEST, PLAN, checked, write

DATA = MANIFEST.to_bytes()


def test_what_is_written_is_read_back(tmp_path):
    for manifest in (MANIFEST, replace(MANIFEST, verdict=checked())):
        path = write(tmp_path, verdict=manifest.verdict)
        assert parse(read_bytes(path), path) == manifest


def test_the_command_builds_the_same_again(tmp_path):
    assert MANIFEST.command(tmp_path / "roads.plan") == COMMAND.format(folder=tmp_path)
    options = Options(target="tensorrt-rtx", compute_capability=("8.6", "8.9"), views=1, refit=True)
    assert options.words() == ["--target", "tensorrt-rtx", "--views", "1", "--compute-capability", "8.6,8.9", "--refit"]
    options = Options(target="tensorrt-rtx", compute_capability=("current",), unlisted_gpu=True)
    said = ["--target", "tensorrt-rtx", "--compute-capability", "current", "--unlisted-gpu"]
    assert options.words() == said


def test_a_manifest_from_before_an_option_was_there_has_its_default(tmp_path):
    path = write(tmp_path)
    values = json.loads(manifest_of(path).read_text())
    del values["options"]["sparse"]
    manifest_of(path).write_text(json.dumps(values))
    assert parse(read_bytes(path), path).options == MANIFEST.options
    assert Options(sparse=True).words() == ["--sparse"]


def test_rewriting_a_manifest_drops_its_signature(tmp_path):
    path = write(tmp_path)
    signature = tmp_path / "roads.plan.json.sig"
    signature.write_text("signed")
    MANIFEST.write(path)
    assert not signature.exists()


def changed(**changes):
    values = json.loads(DATA)
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        inner = values
        for name in parents:
            inner = inner[name]
        inner[last] = value
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "no manifest of format 1"),
        (changed(format=2), "no manifest of format 1"),
        (changed(format=True), "no manifest of format 1"),
        (changed(more=1), "Manifest with unknown or missing parts: more"),
        (changed(plan=None), "FileMark with unknown or missing parts: None"),
        (changed(plan__bytes="9"), "bytes is '9'"),
        (changed(plan__bytes=0), "bytes must be 1 or more, got 0"),
        (changed(plan__bytes=True), "bytes is 'True'"),
        (changed(plan__sha256="0"), "sha256 must be 64 hex digits, got '0'"),
        (changed(plan__sha256="G" * 64), "sha256 must be 64 hex digits, got 'GGG"),
        (changed(onnx__name="../roads.onnx"), "a file's name must be a name without a folder"),
        (changed(onnx__name=""), "a file's name must be a name without a folder"),
        (changed(built__target="openvino"), "target must be tensorrt or tensorrt-rtx, got 'openvino'"),
        (changed(options__target="openvino"), "target must be tensorrt or tensorrt-rtx, got 'openvino'"),
        (changed(runs_on__capabilities="8.6"), "capabilities is '8.6'"),
        (changed(runs_on__capabilities=["86"]), "'86' is not a compute capability"),
        (changed(options__views=3), "views must be 1, 4 or 8, got 3"),
        (changed(options__max_tiles=0), "max_tiles must be 1 or more, got 0"),
        (changed(precision__proven_by="hope"), "proven_by must be inspector or graph, got 'hope'"),
        (changed(ends={"reads": "float64", "gives": "float32"}), "must be float32 or float16, got 'float64'"),
        (changed(precision__shares={"fp16": "all"}), "shares is 'all'"),
        (changed(spec__tile=-1), "its spec is damaged"),
        (changed(spec__tile="64"), "its spec is damaged"),
        (changed(spec__format=9), "spec of format 9"),
        (changed(verdict={}), "Checked with unknown or missing parts"),
    ],
)
def test_what_is_no_manifest_is_refused_with_what_is_wrong(data, message, tmp_path):
    path = tmp_path / "roads.plan"
    with pytest.raises(BadPlan) as e:
        parse(data, path)
    assert message in str(e.value)
    assert f"dlink-build {tmp_path}/roads.onnx -o {path}" in str(e.value)


def test_a_missing_or_endless_manifest_is_refused(tmp_path):
    path = tmp_path / "roads.plan"
    with pytest.raises(BadPlan, match=r"has no manifest roads.plan.json beside it"):
        read_bytes(path)
    manifest_of(path).write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(BadPlan, match=r"longer than any manifest"):
        read_bytes(path)


@pytest.mark.parametrize("text", ["8", "8.", ".6", "8.6.1", "a.b", "8.6\n", "٨.٦", "-8.6", "99999.99999"])
def test_compute_capabilities_are_two_numbers(text):
    with pytest.raises(ValueError, match=r"is not a compute capability"):
        capability_of(text)


def harmless(data, path):
    """Either a whole manifest or BadPlan, and nothing else."""
    try:
        found = parse(data, path)
    except BadPlan:
        return False
    assert parse(found.to_bytes(), path) == found
    assert isinstance(found, Manifest)
    assert all(type(c) is str for c in found.runs_on.capabilities)
    return True


def test_50_000_damaged_manifests_are_refused_or_whole(tmp_path):
    """Bytes changed, cut, doubled and moved, and words put where others stood."""
    rng = random.Random(0)
    path = tmp_path / "roads.plan"
    words = [b"null", b"true", b"-1", b"1e999", b"NaN", b'""', b"[]", b"{}", b'"\\ud800"', b"9" * 5000, b"[[" * 50]
    whole = 0
    for _ in range(50_000):
        data = bytearray(DATA)
        for _ in range(rng.randint(1, 3)):
            at, to = sorted(rng.randrange(len(data) or 1) for _ in range(2))
            kind = rng.randrange(5)
            if kind == 0 and data:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : min(to, at + rng.choice((1, 4, 40, 4000)))]
            elif kind == 2:
                data[at:at] = data[at : min(to, at + 40)]
            elif kind == 3:
                data[at : at + rng.choice((0, 1, 4))] = rng.choice(words)
            else:
                colon = data.find(b": ", at)
                end = min(e for e in (data.find(b",", colon), data.find(b"\n", colon), len(data)) if e >= 0)
                data[colon + 2 : max(end, colon + 2)] = rng.choice(words)
        whole += harmless(bytes(data), path)
    assert 0 < whole < 60_000  # some changes are to a digit or a name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PARTS = json.loads(DATA)
PLACES = [(part, None) for part in PARTS] + [
    (part, key) for part, inner in PARTS.items() if isinstance(inner, dict) for key in inner
]


@settings(max_examples=3000, deadline=None, derandomize=True)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_in_any_place_is_refused_or_whole(place, value, tmp_path_factory):
    values = json.loads(DATA)
    part, key = place
    if key is None:
        values[part] = value
    else:
        values[part][key] = value
    harmless(json.dumps(values).encode(), tmp_path_factory.getbasetemp() / "roads.plan")


@settings(max_examples=3000, deadline=None, derandomize=True)
@given(st.binary(max_size=40) | st.binary(max_size=30).map(lambda tail: PLAN[:20] + tail))
def test_any_first_bytes_of_a_plan_are_read_without_harm(data):
    target, version = made_by(data)
    assert target in ("", "tensorrt", "tensorrt-rtx")
    assert all(part.isdigit() for part in version.split(".") if version)


def test_runs_on_is_what_it_was(tmp_path):
    path = write(tmp_path, runs_on=RunsOn(capabilities=("8.0",), newer_gpus=True))
    assert parse(read_bytes(path), path).runs_on == RunsOn(capabilities=("8.0",), newer_gpus=True)
