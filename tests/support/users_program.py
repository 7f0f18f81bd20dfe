"""What an application writes, and the types that it must see. Read by test_types.py's checkers, never run."""

from concurrent.futures import Future
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import dlink
from dlink.runtime import BadInput, BadModel, DlinkError, EngineFailed, Segmenter, Spec, open_model


def draw(image: NDArray[np.uint8], path: Path) -> NDArray[np.uint8] | None:
    try:
        with open_model(path, threads=4, keys=["fleet.key.pub"]) as model:
            assert_type(model, Segmenter)
            assert_type(model.probabilities(image, views="adaptive"), NDArray[np.float32])
            assert_type(model.levels(image), NDArray[np.uint8])
            future = model.submit(image, views=1)
            assert_type(future, Future[NDArray[np.uint8]])
            assert_type(future.result(), NDArray[np.uint8])
            describe(model.spec)
            return assert_type(model.mask(image, 8), NDArray[np.uint8])
    except BadInput as error:
        assert_type(error, BadInput)
    except (BadModel, EngineFailed) as error:
        failed: DlinkError = error
        assert_type(str(failed), str)
    return None


def describe(spec: Spec) -> None:
    assert_type(dlink.__version__, str)
    assert_type(spec.tile, int)
    assert_type(spec.views, tuple[int, ...])
    assert_type(spec.threshold, float)
    assert_type(Spec(tile=512, precision="fp16").arch, str)
