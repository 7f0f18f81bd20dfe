"""Fixtures that several modules share, which modules are slow, and what is said of the tests that were skipped."""

import os
import signal

import pytest

from tests.support.fake_machine import gpu, machine
from tests.support.recording import recorder
from tests.support.skips import pytest_sessionfinish, pytest_terminal_summary

__all__ = ["gpu", "machine", "pytest_sessionfinish", "pytest_terminal_summary", "recorder"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests import ONNX Runtime themselves

# A shell's background jobs ignore Ctrl-C, and so would the programs that tests begin and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW = {  # modules that take over five seconds on one core: `make check` leaves them to `make test`
    "test_adopt",
    "test_adopted_downstream",
    "test_balance",
    "test_bands",
    "test_bench",
    "test_bench_options",
    "test_best_torch",
    "test_build",
    "test_calib_network",
    "test_calib_qdq",
    "test_calib_ranges",
    "test_calibrate",
    "test_check",
    "test_checkpoint",
    "test_cli",
    "test_compare_layers",
    "test_compilers",
    "test_device_arrays",
    "test_dist",
    "test_driver_calls",
    "test_ends",
    "test_engines",
    "test_ensemble",
    "test_examples",
    "test_export",
    "test_export_bands",
    "test_extras",
    "test_flight",
    "test_foreign",
    "test_gpu",
    "test_gpu_stages",
    "test_interrupted",
    "test_life",
    "test_live_examples",
    "test_manifest",
    "test_map",
    "test_object_storage",
    "test_onnx_bytes",
    "test_page",
    "test_page_examples",
    "test_plan",
    "test_plans",
    "test_process",
    "test_processors",
    "test_pycuda",
    "test_quantised",
    "test_quiet",
    "test_raster",
    "test_recipes",
    "test_report",
    "test_road_map",
    "test_scenes",
    "test_search",
    "test_site",
    "test_source",
    "test_tensorrt_backend",
    "test_training",
    "test_tutorial",
    "test_versions",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
