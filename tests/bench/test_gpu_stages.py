"""bench/gpu from its parts to the table of aims, on a machine that has what the GPU host has, and fakes for the GPU."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from dlink.bench.gpu import pack, stages
from dlink.bench.gpu.aims import AIMS, aims_table, outcomes
from dlink.bench.gpu.pack import MOST, SPARE, TRANSFER, tree_bytes
from dlink.bench.gpu.parts import MANIFEST, cut, main
from dlink.bench.gpu.stages import STAGES, Results, read_rows
from dlink.export.onnx_file import write_onnx
from dlink.imagery.images import write_image
from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.embedded import EMBEDDED
from dlink.nets.folding import fold_norms
from dlink.nets.zoo import spec_of
from dlink.scenes import with_roads
from dlink.trt_runtime.plan import look_here
from tests.doctor.test_extras import is_here
from tests.support.environments import environment
from tests.support.gpu_host import HOST, ROOT, RTX, SIDE, GpuHost, bundle
from tests.support.plans import HERE

pytestmark = [
    pytest.mark.skipif(not is_here("tensorrt-rtx"), reason="needs tensorrt-rtx: pip install 'dlink[test]' on Linux"),
    pytest.mark.skipif(not all(map(shutil.which, ("g++", "xz"))), reason="needs g++ and xz: apt-get install xz-utils"),
]
SMALL = ("--side", SIDE, "--calls", 1, "--soak", 4, "--tests", "known_network")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The folders of a bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "tiles").mkdir()
    tile = with_roads(2, 256, 6_000_000)[1].image[192 : 192 + SIDE, 224:]  # where the network finds a road
    write_image(folder / "tiles" / "1_sat.png", tile)
    read = read_checkpoint(EMBEDDED)
    spec = replace(spec_of(read.arch), width=read.width, tile=SIDE, checkpoint_sha256=read.sha256)
    write_onnx(fold_norms(read.net), spec, folder / "roads.onnx")
    return bundle(folder, folder)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """What the host has, and what the bundle brings beside fakes."""
    return environment(tmp_path_factory.mktemp("host"), [], [*HOST, *RTX])


@pytest.fixture
def host(tmp_path, parts, python):
    return GpuHost(tmp_path, parts, python)


@pytest.fixture(scope="module")
def done(tmp_path_factory, parts, python):
    """A host on which every stage has been run, and what each said."""
    host = GpuHost(tmp_path_factory.mktemp("done"), parts, python)
    host.take_all()
    host.said = {stage: "".join(host.start(stage, *SMALL).communicate()) for stage in STAGES}
    host.rows = read_rows([host.out / "results.jsonl"])
    return host


@pytest.fixture
def here(tmp_path, monkeypatch):
    """This process as one on a host with a GPU, whose stage has items without parts."""
    monkeypatch.setenv("DLINK_GPU", str(tmp_path))
    monkeypatch.delenv("OUT", raising=False)
    monkeypatch.setattr(stages, "look_for_gpus", lambda: HERE.gpus)
    items = {name: {"tar": {"sha256": name}, "facts": {}, "parts": []} for name in ("rtx", "trt86", "full")}
    (tmp_path / MANIFEST).write_text(json.dumps({"format": 1, "items": items}))
    for name in items:
        (tmp_path / name).mkdir()
        (tmp_path / name / ".sha256").write_text(name)
    return lambda **given: stages.Host(given.get("engine"), False, stages.Sizes(SIDE, 1, 1, ""))


def test_every_step_of_every_stage_runs_where_only_the_hosts_packages_and_the_bundles_are(done):
    ended = [row for row in done.rows if "ok" in row]
    assert {row["stage"] for row in ended} == set(STAGES)
    assert [(row["step"], row["said"]) for row in ended if not row["ok"]] == [
        ("peer", "Error: this needs a PyTorch with a GPU")
    ], done.log()
    assert not [row for row in done.rows if "not_run" in row]


def test_the_host_lacks_what_only_a_developer_has(python):
    code = "from importlib.util import find_spec; print([n for n in {} if find_spec(n)])"
    names = ["openvino", "scipy", "skimage", "shapely", "rasterio", "hypothesis"]
    done = subprocess.run([python, "-c", code.format(names)], capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_every_line_says_where_it_is_from(done):
    for row in done.rows:
        assert (row["gpu"], row["driver"]) == ("NVIDIA Fake", "13.0")
        assert row["when"] > "2026"
        assert row["tensorrt"] in ("", "TensorRT-RTX 1.7.1", "TensorRT 8.6.1")
        assert "aim" in row or row["step"]


def test_every_aim_is_a_line_of_its_stages(done):
    said = {(row["stage"], row["aim"]) for row in done.rows if "aim" in row}
    assert said == {(stage, aim.name) for aim in AIMS for stage in aim.stages}
    assert {stage for aim in AIMS for stage in aim.stages} == set(STAGES)


def test_figures_come_from_both_engines(done):
    for key in ("network_ms", "first_mask_s", "soak"):
        found = {(row["tensorrt"], row["file"]["name"].partition(".")[0]) for row in done.rows if key in row}
        assert found == {
            ("TensorRT-RTX 1.7.1", "quarter"),
            ("TensorRT-RTX 1.7.1", "full"),
            ("TensorRT 8.6.1", "quarter"),
        }
    assert {row["roads"]["same"] for row in done.rows if "roads" in row} == {True}


def test_int8_with_transposed_convolutions_is_left_out_for_tensorrt_8(done):
    built = {(row["tensorrt"], row["file"]["name"]) for row in done.rows if "network_ms" in row}
    assert ("TensorRT-RTX 1.7.1", "quarter.int8.onnx") in built
    assert ("TensorRT 8.6.1", "quarter.int8.onnx") not in built


def test_the_table_says_what_was_not_run(done):
    lines = dict(line.split("  ", 1) for line in done.run("aims", done.out / "results.jsonl").splitlines())
    assert " met " in lines["kernels give NumPy's bits"]
    assert "not run" in lines["captures beside PyTorch's default stream"]  # PyTorch had no GPU
    assert "not run" in lines["authors' procedure / dlink"]
    assert "not run" in lines["FP16 network, 8 x 1024"]  # tiles here are smaller


def test_without_a_figure_everything_is_not_run():
    assert len(aims_table([])) == 1 + len(AIMS)
    assert all("not run" in line for line in aims_table([])[1:])


def test_what_was_done_is_not_done_again_unless_it_is_asked_for(done):
    before = len(read_rows([done.stage / "results.jsonl"]))
    assert done.run(1, *SMALL).count("done before") == 2
    rows = read_rows([done.stage / "results.jsonl"])[before:]
    assert all("aim" in row for row in rows)
    assert "bits: ok" in done.run(1, *SMALL, "--again")


def test_a_part_that_is_damaged_or_missing_is_said_by_name(host):
    first, *others = sorted(host.parts.iterdir())
    part = first / "quarter.01"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = host.run("take", first, code=1)
    assert "quarter.01: is damaged, or belongs to another bundle; send folder 01 again" in said
    assert "rtx: complete, unpacked" in said
    assert "quarter: still missing: quarter.01 (folder 01), quarter.02 (folder 02)" in said
    assert "not run: quarter is not here" in host.run(4, code=1)
    part.write_bytes(whole)
    assert "quarter: still missing: quarter.02 (folder 02)" in host.run("take", first)
    assert "quarter: complete, unpacked" in host.run("take", *others)
    assert not list((host.stage / "parts").iterdir())


def test_a_part_of_another_bundle_and_one_that_rots_on_the_stage_are_seen(host):
    first, *others = sorted(host.parts.iterdir())
    (first / "other.01").write_bytes(b"1")
    assert "other.01: does not belong to this bundle" in host.run("take", first, code=1)
    kept = host.stage / "parts" / "quarter.01"
    kept.write_bytes(bytes(kept.stat().st_size))
    assert "quarter: quarter.01 is damaged; send folder 01 again" in host.run("take", *others, code=1)
    assert not kept.exists()


def test_parts_are_unpacked_without_xz(host, monkeypatch):
    monkeypatch.setenv("DLINK_GPU", str(host.stage))
    monkeypatch.setattr("dlink.bench.gpu.parts.shutil.which", lambda name: None)
    assert main([str(min(host.parts.iterdir()))]) == 0
    assert (host.stage / "rtx" / "site" / "pycuda" / "driver.py").exists()


def test_a_stage_that_is_killed_leaves_its_lines_and_goes_on(host):
    host.run("take", min(host.parts.iterdir()))
    process = host.start(2, *SMALL)
    results = host.out / "results.jsonl"
    while not (results.exists() and '"ok": true' in results.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    steps = [row["step"] for row in read_rows([results]) if row.get("ok")]
    assert steps[:1] == ["memcheck"]
    assert len(steps) < 3
    said = host.run(2, *SMALL)
    assert "memcheck: done before" in said
    assert "bandwidth: ok" in said
    assert {"memcheck", "racecheck", "bandwidth"} <= {row.get("step") for row in read_rows([results])}


def test_a_step_that_hangs_costs_its_own_time_alone(here, tmp_path):
    lines = []
    code = "import sys, time; print('{\"a\": 1}', file=open(sys.argv[1], 'w'), flush=True); time.sleep(60)"
    begun = time.monotonic()
    found = stages.watched([sys.executable, "-c", code, stages.APPEND], here(), "", 1, lines.append)
    assert (found, lines) == (None, [{"a": 1}])
    assert time.monotonic() - begun < 10


def test_a_stage_whose_time_is_up_says_what_was_not_run(here, capsys):
    host = here()
    assert not stages.run_stage(1, host, time.monotonic())
    assert [row.get("not_run") for row in host.results.rows[:2]] == ["no time left; run the stage again"] * 2


def test_where_rtx_does_not_take_the_gpu_tensorrt_8_does_its_work(here, capsys):
    host = here()
    assert host.engine() == "rtx"
    host.results.add({"gpu": "Orin", "takes": False})
    assert (host.engine(), here(engine="rtx").engine()) == ("trt86", "rtx")
    assert stages.run_stage(5, host, time.monotonic() + 60)
    assert "run stages 7 and 8 instead" in capsys.readouterr().out


def test_a_gpu_that_rtx_does_not_list_is_tried_in_two_ways(here, tmp_path, monkeypatch):
    monkeypatch.setattr(stages.Host, "unlisted", True)
    first, second = ["--unlisted-gpu"], ["--unlisted-gpu", "--compute-capability", "current"]
    host = here()
    (tmp_path / "quarter").mkdir()
    assert host.rtx_options() == [first, second]
    steps = [next(made) for made in [stages.takes(host)] * 2]
    assert (steps[0].arguments[-1], steps[1].arguments[-3:]) == (
        "--unlisted-gpu",
        ["--unlisted-gpu", "--append", "{append}"],
    )
    for takes, way in ((False, first), (True, second)):
        host.results.add({"gpu": "Orin", "takes": takes, "with": way})
    assert host.rtx_options() == [second]
    assert host.environment("rtx")["DLINK_BUILD_WITH"] == "--unlisted-gpu --compute-capability current"
    assert "DLINK_BUILD_WITH" not in host.environment("trt86")


def test_a_mark_holds_for_the_same_command_files_and_gpu(tmp_path):
    file = tmp_path / "roads.onnx"
    file.write_bytes(b"1")
    keys = [
        stages.key_of(["a"], (file,), "H200"),
        stages.key_of(["b"], (file,), "H200"),
        stages.key_of(["a"], (file,), "H100"),
    ]
    file.write_bytes(b"2")
    assert len({*keys, stages.key_of(["a"], (tmp_path,), "H200")}) == 4


@pytest.mark.skipif(bool(look_here().gpus.found), reason="needs a machine without a GPU")
def test_without_a_gpu_a_stage_says_so(host):
    (host.tools / "libcuda.so.1").unlink()
    assert "this needs an NVIDIA GPU, and there is none here" in host.run(1, code=1)
    assert "not a stage; `list` names the stages" in host.run("speed", code=1)
    assert host.run("list").count("about") == len(STAGES)


SIZE = {"tile": 1024, "batch": 8}


def test_a_limit_for_another_card_is_in_the_ratio_of_matrix_speeds():
    ms = {"file": {"name": "full.fp16.onnx"}, "network_ms": {"p50": 4.5}, **SIZE, "tensorrt": "TensorRT 8.6.0"}
    rows = [{"gpu": "NVIDIA H100", "tensorrt": "", "matrix_tflops": 600.0}, {"gpu": "NVIDIA H100", **ms}]
    h200 = [{"gpu": "NVIDIA H200", "tensorrt": "", "matrix_tflops": 720.0}]
    of = lambda rows: next(o for o in outcomes(rows) if o.aim.scaled and o.gpu == "NVIDIA H100")  # noqa: E731
    assert (round(of(rows).limit, 2), of(rows).met) == (5.65, True)  # an H200's 788 TFLOP/s are known
    assert (round(of(rows + h200).limit, 2), of(rows + h200).met) == (5.16, True)
    assert (of(rows[1:]).limit, of(rows[1:]).met) == (None, None)


def of_files(*each, gpu="NVIDIA H200"):
    """What is said of each aim, of rows of full-size files."""
    rows = [{"gpu": gpu, "tensorrt": "A", "file": {"name": f"full.{name}"}, **found} for name, found in each]
    return {o.aim.name: (o.figure, o.met) for o in outcomes(rows)}


def test_what_holds_for_all_files_is_said_when_both_precisions_are_measured():
    fp16 = {"network_ms": {"p50": 4.0}, **SIZE, "roads": {"same": True}, "proven_by": "inspector"}
    aims = ("same roads as PyTorch", "precision by the inspector")
    alone, both = of_files(("fp16.onnx", fp16)), of_files(("fp16.onnx", fp16), ("int8.conv.onnx", fp16))
    assert [(alone[name], both[name]) for name in aims] == [((None, None), (1.0, True))] * 2
    first = {"first_mask_s": 1.0, "host_bytes": 5e8}
    assert of_files(("fp16.plan", first))["first mask, RTX's kernels kept"] == (None, None)
    found = of_files(("fp16.plan", first), ("int8.plan", {**first, "host_bytes": 7e8}))
    assert (found["first mask, RTX's kernels kept"], found["host memory of a process"]) == ((1.0, True), (700.0, False))


def test_what_is_no_number_is_not_met_and_no_memory_no_figure():
    first = {"first_mask_s": 1.0, "host_bytes": 0}
    found = of_files(("fp16.plan", first), ("int8.plan", {**first, "first_mask_s": float("nan")}))
    assert found["first mask, RTX's kernels kept"][1] is False
    assert found["host memory of a process"] == (None, None)


def test_a_figure_goes_where_the_newest_row_of_its_file_is_an_error():
    good, bad = ("fp16.onnx", {"network_ms": {"p50": 4.0}, **SIZE}), ("fp16.onnx", {"error": "no plan"})
    assert of_files(good)["FP16 network, 8 x 1024"] == (4.0, True)
    assert of_files(good, bad)["FP16 network, 8 x 1024"] == (None, None)
    assert of_files(good, gpu="NVIDIA GH200 480GB")["FP16 network, 8 x 1024"] == (4.0, None)


def test_times_of_other_sizes_and_a_way_that_fails_now_are_no_figures():
    small = {"network_ms": {"p50": 1.0}, "tile": 256, "batch": 1}
    assert of_files(("fp16.onnx", small))["FP16 network, 8 x 1024"] == (None, None)
    aims_table = {"rows": [{"way": "graph", "tiles": 1, "views": 8, "p50": 5.0}], **SIZE}
    peer = {"gpu": "H200", "tensorrt": "", "peer": "torch authors", "views": 8, "tile": 1024}
    rows = [{"gpu": "H200", "tensorrt": "A", "file": {"name": "full.fp16.plan"}, **aims_table}, {**peer, "p50": 100.0}]
    of = lambda rows: next(o.figure for o in outcomes(rows) if o.aim.name == "authors' procedure / dlink")  # noqa: E731
    assert of(rows) == 20.0
    assert of([*rows, {**peer, "error": "no compiler"}]) is None
    soak = {"soak": {"tiles": 1, "gpu_bytes_lost": 0}}
    assert of_files(("fp16.plan", soak), ("int8.plan", soak))["GPU memory lost in a soak"] == (None, None)


def test_tests_that_were_all_skipped_have_not_passed():
    for said, met in (("35 passed, 2 skipped in 20s", True), ("37 skipped in 1s", False)):
        rows = [{"gpu": "H200", "tensorrt": "A", "stage": 5, "step": "tests", "ok": True, "said": said}]
        assert next(o.met for o in outcomes(rows) if o.aim.name == "tests for a GPU pass") is met


def test_rows_of_someone_else_are_left_out():
    rows = [{"gpu": "H200", "rows": [{"way": "graph"}]}, {"gpu": "H200", "file": "x"}]
    assert all(outcome.met is None for outcome in outcomes(rows))


def test_a_line_that_was_cut_short_costs_itself_alone(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"a": 1}\n{"b": ')
    Results(path).add({"c": 2})
    assert read_rows([path]) == [{"a": 1}, {"c": 2}]


def test_ratios_are_of_one_tensorrt_and_pytorch_counts_for_all():
    def row(engine, name, **figures):
        return {"gpu": "H200", "tensorrt": engine, "file": {"name": name}, **figures}

    aims_table = [{"way": "graph", "tiles": 1, "views": 8, "p50": 5.0}]
    rows = [
        row("A", "full.fp16.onnx", network_ms={"p50": 4.0}, **SIZE),
        row("B", "full.int8.conv.onnx", network_ms={"p50": 1.0}, **SIZE),
        row("B", "full.fp16.plan", rows=aims_table, **SIZE),
        {"gpu": "H200", "tensorrt": "", "peer": "torch authors", "views": 8, "tile": 1024, "p50": 100.0},
    ]
    found = {(o.aim.name, o.tensorrt): (o.figure, o.met) for o in outcomes(rows)}
    assert found["INT8 network / FP16 network", ""] == (None, None)
    assert found["authors' procedure / dlink", "B"] == (20.0, True)


def test_a_file_that_failed_is_no_same_roads():
    rows = [{"gpu": "H200", "tensorrt": "A", "file": {"name": "full.fp16.onnx"}, "error": "no plan"}]
    assert next(o.met for o in outcomes(rows) if o.aim.name == "same roads as PyTorch") is False


def test_lines_that_were_cut_short_or_come_twice_are_left_out(tmp_path):
    (tmp_path / "a").write_text('{"a": 1}\n{"b": ')
    (tmp_path / "b").write_text('{"a": 1}\n{"c": 2}\n')
    assert read_rows([tmp_path / "a", tmp_path / "b"]) == [{"a": 1}, {"c": 2}]


@pytest.mark.parametrize(("size", "room"), [(1, 0), (99, 0), (250, 0), (250, 40), (250, 3), (30, 40), (0, 0)])
def test_a_file_is_cut_into_parts_that_fit(size, room, tmp_path):
    file, limit = tmp_path / "tar", 100
    file.write_bytes(bytes(size))
    at, left = 0, room
    for name, new, start, end in cut(file, "x", room, limit):
        left = limit if new else left
        assert (name[:2], start) == ("x.", at)
        assert 0 < end - start <= left
        at, left = end, left - (end - start)
    assert at == size


def test_a_second_packing_keeps_what_was_made(tmp_path):
    weights = ROOT / "nets" / "weights" / "dlinknet34-w025.th"
    arguments = ["--checkpoint", weights, "--only", "checkpoint", "--out", tmp_path / "out"]
    made = []
    for _ in range(2):
        result = CliRunner().invoke(pack.main, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        [tar] = (tmp_path / "out" / "cache").glob("checkpoint-*.tar")
        made.append(tar.stat().st_mtime_ns)
    assert made[0] == made[1]
    assert "unchanged" in result.output
    (tmp_path / "out" / "parts" / "01" / "checkpoint.01").unlink()  # sent, and moved
    assert "unchanged" not in CliRunner().invoke(pack.main, list(map(str, arguments))).output
    text = (tmp_path / "out" / "parts" / "01" / MANIFEST).read_text()
    assert str(tmp_path) not in text
    said = f"the tree takes {tree_bytes(ROOT) / 2**20:.1f} MiB of a transfer"
    assert said in result.output
    assert min(MOST, TRANSFER - SPARE - tree_bytes(ROOT)) + tree_bytes(ROOT) < TRANSFER


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--checkpoint", "{here}/README.md"], "README.md: a text file, not a checkpoint"),
        (["--checkpoint", "{here}/nets/weights/dlinknet34-w025.th", "--tiles", "{empty}"], "no tiles; expected"),
        (["--tiles", "{here}/nets/weights"], "no tiles; expected"),
    ],
)
def test_what_can_not_be_packed_is_refused_before_anything_is(given, said, tmp_path):
    (tmp_path / "empty").mkdir()
    words = [word.format(here=ROOT, empty=tmp_path / "empty") for word in given]
    result = CliRunner().invoke(pack.main, [*words, "--out", str(tmp_path / "out")])
    assert (result.exit_code, said in result.output) == (1, True), result.output
    assert "gather" not in result.output


def test_folders_that_hold_no_parts_are_said(host):
    first = min(host.parts.iterdir())
    words = "has no manifest.json; give the folders that `make gpu-bundle` made, such as build/gpu/parts/01"
    assert words in host.run("take", host.parts, code=1)
    host.run("take", first)
    assert f"{first}: is a folder; give the folders of parts themselves" in host.run("take", host.parts, code=1)
    assert f"{first}: has no parts; `take` moves parts out of their folder" in host.run("take", first, code=1)


def test_items_that_nobody_knows_are_refused(tmp_path):
    result = CliRunner().invoke(pack.main, ["--only", "tea", "--out", str(tmp_path)])
    assert (result.exit_code, "--only tea: there are rtx, quarter" in result.output) == (1, True)
