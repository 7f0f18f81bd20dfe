"""What is said of roads holds on other processors than this one: the tests whose verdicts hang on arithmetic, there."""

import pytest

from tests.support.processors import ISA, PROCESSORS, lacks, run_as

EXPORT = "tests/export/test_export.py::test_every_network_is_proven_and_opens"
LAYERS = "tests/engine/test_compare_layers.py::test_openvino_computes_every_layer_as_onnx_runtime_does"
CALIBRATION = [
    "tests/calib/test_calibrate.py::test_an_int8_file_draws_the_roads_of_the_float_one",
    "tests/calib/test_calibrate.py::test_openvino_really_runs_int8_where_that_is_right",
]
INT8 = [f"{LAYERS}[int8]", *CALIBRATION]
REDUCED = [
    *(f"{EXPORT}[fp16-{arch}]" for arch in ("dlinknet34", "dlinknet50", "unet", "pplinknet34-psp64")),
    f"{LAYERS}[fp16]",
    f"{LAYERS}[int8]",
    "tests/openvino_runtime/test_openvino_backend.py",
]
ROUNDING = [
    "tests/runtime/test_rounding.py::test_export_proves_what_rounding_moves_across_the_threshold_and_says_so",
    "tests/runtime/test_rounding.py::test_export_refuses_masks_that_more_than_rounding_moved",
    "tests/runtime/test_rounding.py::test_calibrations_judge_settles_masks_as_a_check_does",
]
CHOSEN = {
    "AVX2": [
        EXPORT,
        LAYERS,
        "tests/runtime/test_backend.py",
        "tests/openvino_runtime/test_openvino_backend.py",
        *ROUNDING,
    ],
    "AVX2-VNNI": INT8,  # VNNI changes int8 alone,
    "AVX-512": [*REDUCED, *CALIBRATION],  # and AVX-512 files in reduced precision
    "AVX-512-VNNI": INT8,
    "AVX-512-BF16": REDUCED,
    "AMX": [*REDUCED, *CALIBRATION],
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_is_proven_here_is_proven_there(name):
    processor = PROCESSORS[name]
    if missing := lacks(processor):
        pytest.skip(f"needs a processor with {' and '.join(missing)}")
    done = run_as(processor, CHOSEN[name])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    told = [line.removeprefix(ISA) for line in done.stdout.splitlines() if line.startswith(ISA)]
    assert len(told) == 2  # PyTorch's oneDNN and OpenVINO's
    assert all(processor.isa in isa if name == "AMX" else processor.isa == isa for isa in told), told
