"""What the tests of map jobs share: a network, and the end of what a block's work keeps open."""

import pytest

from dlink.maps.job.tasks import close_all
from tests.maps.job.scenes import roads


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return roads(tmp_path_factory.mktemp("model") / "roads.onnx")


@pytest.fixture
def closed():
    """Closes the networks and rasters that blocks' work in this process has opened."""
    yield
    close_all()
