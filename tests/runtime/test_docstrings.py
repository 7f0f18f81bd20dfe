"""The examples in the docstrings of what an embedder calls: each runs and prints what it says."""

import ast
import doctest

import cv2
import numpy as np
import pytest
import rasterio

from dlink.runtime import Spec
from tests.support.environments import ROOT
from tests.support.models import write_pointwise
from tests.support.video import write_video

API = {  # by file
    "runtime/__init__.py": {"", "open_model"},
    "runtime/segmenter.py": {
        "Segmenter",
        "Segmenter.close",
        "Segmenter.levels",
        "Segmenter.mask",
        "Segmenter.pieces",
        "Segmenter.probabilities",
        "Segmenter.segment_device",
        "Segmenter.submit",
    },
    "runtime/spec.py": {"Spec", "Spec.from_json", "Spec.of_onnx", "Spec.prepare", "Spec.to_json"},
    "runtime/backend.py": {"HostBackend"},
    "runtime/errors.py": {"DlinkError", "NoProbability"},
    "imagery/images.py": {"find_tiles", "read_image", "write_image"},
    "imagery/labels.py": {"read_label"},
    "imagery/reading.py": {"Reading"},
    "imagery/jobs.py": {"find_jobs"},
    "imagery/pictures.py": {"segment_picture"},
    "imagery/raster.py": {"segment_raster"},
    "maps/vectorize.py": {"vectorize"},
    "maps/job/run.py": {"make_map"},
    "live/__init__.py": {""},
    "live/live.py": {"Live"},
    "live/ground/ground.py": {"Flat"},
    "live/video/source.py": {"Source"},
    "trt_runtime/tensorrt_backend.py": {"memory_needed"},
}
ON_A_GPU = {"Segmenter.segment_device", "memory_needed"}
SKIPPED = 4  # statements of those
SECTIONS = {  # in Google style
    "open_model": ("Args", "Returns", "Raises"),
    "Segmenter": ("Args", "Raises"),
    "Segmenter.probabilities": ("Args", "Returns", "Raises"),
    "Segmenter.levels": ("Args", "Returns", "Raises"),
    "Segmenter.mask": ("Args", "Returns", "Raises"),
    "Segmenter.submit": ("Args", "Returns", "Raises"),
    "Segmenter.segment_device": ("Args", "Returns", "Raises"),
    "Segmenter.pieces": ("Args", "Yields", "Raises"),
    "Spec.prepare": ("Args", "Returns"),
    "Spec.from_json": ("Args", "Returns", "Raises"),
    "Spec.of_onnx": ("Args", "Returns", "Raises"),
    "HostBackend": ("Args",),
    "read_image": ("Args", "Returns", "Raises"),
    "read_label": ("Args", "Returns", "Raises"),
    "write_image": ("Args", "Raises"),
    "find_tiles": ("Args", "Returns", "Raises"),
    "find_jobs": ("Args", "Returns", "Raises"),
    "segment_picture": ("Args", "Raises"),
    "segment_raster": ("Args", "Raises"),
    "make_map": ("Args", "Returns", "Raises"),
    "vectorize": ("Args", "Returns", "Raises"),
    "memory_needed": ("Args", "Returns", "Raises"),
}


def docstrings(source):
    """By qualified name ("" for the module) the text and its line. Files are not imported, since some need pycuda."""
    tree = ast.parse((ROOT / source).read_text())
    pending = [("", tree)]
    while pending:
        name, node = pending.pop()
        if text := ast.get_docstring(node):
            yield name, text, node.body[0].lineno
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                pending.append((f"{name}.{child.name}".lstrip("."), child))


def examples(source):
    """The doctests of a file, by the name of what they show."""
    parser = doctest.DocTestParser()
    for name, text, line in docstrings(source):
        test = parser.get_doctest(text, {}, name, source, line)
        if test.examples:
            yield name, test


EXAMPLES = [pytest.param(name, test, id=f"{source}:{name}") for source in API for name, test in examples(source)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where an example runs: a model that draws what is red, a tile with its label, and both as GeoTIFFs."""
    monkeypatch.chdir(tmp_path)
    write_pointwise(tmp_path / "roads.onnx", Spec(tile=64))
    write_video(tmp_path / "flight.ts", 3)
    (tmp_path / "tiles").mkdir()
    cv2.imwrite("tiles/104_sat.png", picture()[..., ::-1])
    cv2.imwrite("tiles/104_mask.png", picture()[..., 0])
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    with rasterio.open(
        "scene.tif", "w", driver="GTiff", height=100, width=150, count=3, dtype="uint8", **place
    ) as file:
        file.write(np.moveaxis(picture(), -1, 0))
    with rasterio.open("mask.tif", "w", driver="GTiff", height=100, width=150, count=1, dtype="uint8", **place) as file:
        file.write(picture()[..., 0], 1)


def picture():
    """Black, 100 rows by 150 columns, with a red road of 20 rows from side to side."""
    image = np.zeros((100, 150, 3), np.uint8)
    image[40:60, :, 0] = 255
    return image


def skips(test):
    return [bool(example.options.get(doctest.SKIP)) for example in test.examples]


@pytest.mark.parametrize("source", API)
def test_what_an_embedder_calls_has_an_example(source):
    assert {name for name, _ in examples(source)} == API[source]


@pytest.mark.parametrize(("name", "test"), EXAMPLES)
def test_an_example_prints_what_it_says(folder, name, test):
    test.globs.update(image=picture(), __name__=name)
    printed = []
    runner = doctest.DocTestRunner(verbose=False)
    result = runner.run(test, out=printed.append, clear_globs=True)
    assert result.failed == 0, "".join(printed)
    assert result.attempted > 0 or name in ON_A_GPU


def test_only_examples_that_need_a_gpu_are_skipped():
    tests = [(param.values[0], param.values[1]) for param in EXAMPLES]
    assert {name for name, test in tests if any(skips(test))} == ON_A_GPU
    assert sum(sum(skips(test)) for _, test in tests) == SKIPPED


@pytest.mark.parametrize("name", SECTIONS)
def test_arguments_results_and_errors_have_their_sections(name):
    texts = {name: text for source in API for name, text, _ in docstrings(source)}
    assert [section for section in SECTIONS[name] if f"\n{section}:\n" not in texts[name]] == []
