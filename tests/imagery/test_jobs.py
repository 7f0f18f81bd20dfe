import struct

import pytest
import rasterio

from dlink.imagery.jobs import OutputOptions, find_jobs, find_pictures
from dlink.imagery.kinds import georeferenced
from dlink.runtime import BadInput

NOTHING = OutputOptions()


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_names_are_deepglobes(tmp_path):
    folder = touch(tmp_path / "in", "104_sat.jpg", "b.png")
    jobs = find_jobs([folder], tmp_path / "out", OutputOptions(overlay=True))
    assert [(j.out.name, j.overlay.name) for j in jobs] == [
        ("104_mask.png", "104_overlay.jpg"),
        ("b_mask.png", "b_overlay.jpg"),
    ]
    assert find_jobs([folder], tmp_path / "out", OutputOptions(probability=True))[0].out.name == "104_prob.png"


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["1_sat.jpg", "1_mask.png", "9_mask.png"], ["1_sat.jpg"]),
        (["1_sat.jpg", "1_overlay.jpg", "1_prob.png", "2.tif"], ["1_sat.jpg", "2.tif"]),
        (["a.png", "a_mask.png", "a_overlay.jpg"], ["a.png"]),
        (["gas_mask.png", "notes.txt", ".hidden.png"], ["gas_mask.png"]),
    ],
)
def test_a_folders_masks_are_not_its_pictures(tmp_path, names, taken):
    assert [p.name for p in find_pictures(touch(tmp_path / "in", *names))] == taken


def test_one_image_goes_to_a_file_or_a_folder(tmp_path):
    image = touch(tmp_path, "a.jpg") / "a.jpg"
    (tmp_path / "dir.png").mkdir()
    names = {out: find_jobs([image], tmp_path / out, NOTHING)[0].out for out in ("m.png", "m.TIF", "dir", "dir.png")}
    assert {out: path.relative_to(tmp_path).as_posix() for out, path in names.items()} == {
        "m.png": "m.png",
        "m.TIF": "m.TIF",
        "dir": "dir/a_mask.png",
        "dir.png": "dir.png/a_mask.png",
    }


def test_a_named_masks_overlay_takes_its_name(tmp_path):
    image = touch(tmp_path, "a.jpg") / "a.jpg"
    assert (
        find_jobs([image], tmp_path / "x_mask.png", OutputOptions(overlay=True))[0].overlay
        == tmp_path / "x_overlay.jpg"
    )


@pytest.mark.parametrize(
    ("arguments", "out", "message"),
    [
        (["gone"], "out", "gone: no such file or folder"),
        (["empty"], "out", "empty: no pictures in it; expected names ending in .png, .jpg"),
        (["in/a.png", "in/a.png"], "out", "a.png and .*a.png would both write"),
        (["in/a.png"], "in/a.png", "a.png: is an input, or the label of one"),
        (["in/a.png"], "link.png", "link.png: is an input, or the label of one"),
        (["tiles"], "tiles", "1_mask.png: is an input, or the label of one"),
        (["in/a.png"], "a.jpg", "a.jpg: JPEG blurs masks; name it .png"),
        (["in"], "x.png", "x.png: a file; 2 images of .*in need the name of a folder"),
        (["in/a.png", "in/a.jpg"], "in/notes", "notes: a file; 2 images"),
    ],
)
def test_clashes_are_refused_before_anything_is_done(tmp_path, arguments, out, message):
    touch(tmp_path / "in", "a.png", "a.jpg", "notes")
    touch(tmp_path / "tiles", "1_sat.jpg", "1_mask.png")
    touch(tmp_path / "empty", "readme.txt")
    (tmp_path / "link.png").hardlink_to(tmp_path / "in/a.png")
    with pytest.raises(BadInput, match=message):
        find_jobs([tmp_path / a for a in arguments], tmp_path / out, NOTHING)


def tiff(order, big, tag):
    """The smallest TIFF header with one tag."""
    mark = {"<": b"II", ">": b"MM"}[order]
    if big:
        return mark + struct.pack(order + "HHHQQHHQQ", 43, 8, 0, 16, 1, tag, 3, 1, 0)
    return mark + struct.pack(order + "HIHHHII", 42, 8, 1, tag, 3, 1, 0)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("tag", "geo"), [(34735, True), (33550, True), (34264, True), (256, False)])
def test_geotiffs_are_known_by_their_tags(tmp_path, order, big, tag, geo):
    (tmp_path / "a.tif").write_bytes(tiff(order, big, tag))
    assert georeferenced(tmp_path / "a.tif") is geo


def test_a_world_file_is_a_georeference_too(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff("<", False, 256))
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    assert georeferenced(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "data", [b"", b"II", b"II*\0" + b"\xff" * 20, b"MM\0+" + b"\xff" * 20, b"II*\0\x08\0\0\0" + b"\0" * 7]
)
def test_damaged_headers_are_no_geotiffs(tmp_path, data):
    (tmp_path / "a.tif").write_bytes(data)
    assert not georeferenced(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "kind", [{"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 5, 0, -2, 9)}, {"crs": "EPSG:4326"}]
)
@pytest.mark.parametrize("bigtiff", ["YES", "NO"])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_gdal_writes_is_known_as_geotiff(tmp_path, kind, bigtiff):
    size = {"width": 4, "height": 4, "count": 1, "dtype": "uint8", "bigtiff": bigtiff}
    rasterio.open(tmp_path / "a.tif", "w", **size, **kind).close()
    rasterio.open(tmp_path / "plain.tif", "w", **size).close()
    assert georeferenced(tmp_path / "a.tif")
    assert not georeferenced(tmp_path / "plain.tif")


def test_a_geotiff_becomes_a_tif_and_never_a_png(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff("<", False, 34735))
    job = find_jobs([tmp_path / "a.tif"], tmp_path / "out", OutputOptions(overlay=True))[0]
    assert (job.geo, job.out.name, job.overlay) == (True, "a_mask.tif", tmp_path / "out/a_overlay.tif")
    with pytest.raises(BadInput, match=r"m.png: a PNG would lose the georeference of a.tif; name it .tif"):
        find_jobs([tmp_path / "a.tif"], tmp_path / "m.png", NOTHING)
