"""What the tests of training share."""

import pytest

from dlink.cli.scenes import write_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A DeepGlobe folder of four generated tiles."""
    home = tmp_path_factory.mktemp("tiles")
    for seed in (0, 2, 4, 6):
        write_scene(home, seed, 128)
    return home
