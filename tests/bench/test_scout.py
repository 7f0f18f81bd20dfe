"""The bench of a scout counts what both ways do, from windows that went through both networks."""

import numpy as np
import pytest
from click.testing import CliRunner

from dlink.bench.scout import Looked, compared, macs_of, main, mixed
from dlink.imagery.images import find_tiles, write_image
from dlink.runtime import Spec
from dlink.runtime.files import file_sha256
from dlink.runtime.scout_limit import ScoutLimit
from tests.support.models import write_pointwise

SIDE = 32
MACS = (100, 10)
SEEN = (
    Looked(False, 0.1, 1.0, 7.0, True, (50, 100), (60, 100), 80),
    Looked(True, 0.1, 1.0, 7.0, False, (0, 0), (0, 0), 0),
    Looked(True, 0.1, 1.0, 7.0, False, (5, 20), (10, 20), 15),
)


@pytest.mark.parametrize(
    ("way", "views", "kept", "both", "either"),
    [("8", 24, 8, (70, 60), (120, 115)), ("1", 3, 1, (55, 50), (120, 115)), ("adaptive", 10, 8, (65, 60), (120, 115))],
)
def test_both_ways_are_counted_window_by_window(way, views, kept, both, either):
    row = compared(SEEN, way, MACS)
    assert (row["macs"], row["macs_scouted"]) == (views * 100, kept * 100 + 3 * 10)
    assert row["times"] == row["macs"] / row["macs_scouted"]
    assert (row["seconds"], row["seconds_scouted"]) == (pytest.approx(views), pytest.approx(kept + 0.3))
    assert row["iou"] == pytest.approx(both[0] / either[0])
    assert row["iou_scouted"] == pytest.approx(both[1] / either[1])  # a skipped window's road is missed


def write(folder, name, road):
    image = np.full((SIDE, SIDE, 3), 255 if road else 10, np.uint8)
    write_image(folder / f"{name}_sat.png", image)
    write_image(folder / f"{name}_mask.png", np.full((SIDE, SIDE), 255 * road, np.uint8))


def test_the_tiles_are_mixed_to_the_share_that_was_asked_for(tmp_path):
    for i in range(20):
        write(tmp_path, f"{i:02}", road=i < 10)
    chosen = mixed(find_tiles(tmp_path), 0.3)
    assert [tile.id for tile in chosen] == ["00", "01", "02", "03", *map(str, range(10, 20))]


def test_the_bench_prints_and_appends_its_rows(tmp_path):
    large = write_pointwise(tmp_path / "roads.onnx", Spec(tile=SIDE))
    limit = ScoutLimit(
        level=100, missed=0.1, confidence=0.9, tiles=30, threshold=0.5, large_sha256=file_sha256(large), views=8, halo=0
    )
    scout = write_pointwise(tmp_path / "scout.onnx", Spec(tile=SIDE, scout=limit))
    (tmp_path / "tiles").mkdir()
    for i in range(10):
        write(tmp_path / "tiles", f"{i:02}", road=i < 5)
    rows = tmp_path / "rows.jsonl"
    result = CliRunner().invoke(main, [str(large), str(scout), str(tmp_path / "tiles"), "--append", str(rows)])
    assert result.exit_code == 0, result.output
    assert "10 windows, 5 with road, 5 skipped; of the road found 0.000% is missed" in result.stdout
    assert macs_of(large) == 3 * SIDE**2
    assert len(rows.read_text().splitlines()) == 3
