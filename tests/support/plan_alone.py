"""Run by test_extras.py in a process of its own: open a plan on the fakes where hardly anything can be imported.

What the fakes themselves are made of is loaded before the rest is shut out. Prints the share of road in a picture, by
the runtime with TensorRT and pycuda alone, and then by dlink-segment with what the extra brings.
"""

import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dlink.doctor.extras import NEEDS, brought
from tests.support.fake_machine import SIDE, expected, machines, tiles

extra, version, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
HEAVY = {need.package for need in NEEDS}
RUNTIME = {"numpy", "pycuda", "tensorrt", "tensorrt_rtx"}


def top(name):
    return name.partition(".")[0]


def allow(packages):
    """Let nothing else that dlink can use be imported, nor be found where it has been."""
    for name in HEAVY | LOADED.keys():
        if top(name) not in packages:
            sys.modules[name] = None
        elif name in LOADED:
            sys.modules[name] = LOADED[name]
        else:
            sys.modules.pop(name, None)


with pytest.MonkeyPatch.context() as patch, contextmanager(machines)(folder, patch) as machine:
    there = machine(version)
    [image] = tiles(1)
    share = float((expected(there, image[None]) > 0.5).mean())  # this makes ONNX Runtime's session
    import cv2

    cv2.imwrite(str(folder / "picture.png"), image[..., ::-1])
    LOADED = {name: module for name, module in sys.modules.items() if top(name) in HEAVY}
    allow(RUNTIME)
    from dlink.runtime import open_model

    with open_model(there.plan) as model:
        mask = model.mask(image)
        print(model.backend.engine)
    assert mask.shape == (SIDE, SIDE)
    assert abs(float((mask > 0).mean()) - share) < 0.01, share

    allow(RUNTIME | {need.package for need in brought(extra)})
    from dlink.cli.segment import segment

    segment([str(there.plan), str(folder / "picture.png"), "-o", str(folder / "mask.png")], standalone_mode=False)
    np.testing.assert_array_equal(cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE), mask)
