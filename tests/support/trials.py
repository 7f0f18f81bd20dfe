"""What each extra is tried by: its first command, and the files that the command takes.

tests/doctor/test_extras.py runs it among links to what is installed here, installs.py in an environment that pip makes.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from dlink.nets.embedded import EMBEDDED
from tests.support.calibrated import folder_of
from tests.support.command import call
from tests.support.mavlink import write_log
from tests.support.plans import write
from tests.support.video import write_video

SIDE = 128
NO_GPU = "and there is none here"


@dataclass(frozen=True)
class Trial:
    """Commands to be run in turn where the files of `write_files` lie, and what they leave."""

    commands: tuple[str, ...]
    made: str
    besides: tuple[str, ...] = ()  # distributions that the extra leaves to the user
    gpu: bool = False  # it takes one; elsewhere a command says NO_GPU


SMALL = "--width 0.125 --crop 64 --batch 1 --epochs 1"
FEW = "--samples 2 --held 2 --method max --max-iou-drop 0.1 --min-agreement 0.9"
TRIALS = {
    "cpu": Trial(("segment roads.onnx tiles -o masks",), "masks/0_mask.png"),
    "export": Trial((f"export roads.th new.onnx --tile {SIDE} --precision fp16 --tiles tiles",), "new.onnx"),
    "calib": Trial((f"calibrate roads.onnx tiles -o int8.onnx {FEW}",), "int8.onnx"),
    "accuracy": Trial(("score streets.gpkg streets.geojson", "score tiles labels --csv scores.csv"), "scores.csv"),
    "geo": Trial(("segment roads.onnx scene.tif -o roads.tif",), "roads.tif"),
    "maps": Trial(("vectorize mask.tif -o lines.gpkg",), "lines.gpkg"),
    "maps-dask": Trial(("map roads.onnx scene.tif -o map --engine dask --workers 1",), "map/roads.tif"),
    "maps-ray": Trial(("map roads.onnx scene.tif -o map --engine ray --workers 1",), "map/roads.tif"),
    "live": Trial(("live roads.onnx flight.ts -o session",), "session/roads.jsonl"),
    "mavlink": Trial(
        (
            "live roads.onnx flight.ts -o flown --gsd 0.5 --telemetry mavlink:flight.tlog --video-start "
            "2023-11-14T22:13:20Z --no-map",
        ),
        "flown/roads.jsonl",
    ),
    "train": Trial((f"train tiles -o new.th {SMALL} --valid tiles",), "new.th"),
    "osm": Trial(("osm ground streets.geojson -o streets",), "streets/scene_mask.png"),
    "build": Trial(("build roads.onnx -o new.plan --target tensorrt-rtx",), "new.plan", besides=("tensorrt-rtx",)),
    "trt": Trial(
        ("build roads.onnx -o new.plan --target tensorrt", "segment new.plan tiles -o masks"),
        "masks/0_mask.png",
        gpu=True,
    ),
    "rtx": Trial(
        ("build roads.onnx -o new.plan --target tensorrt-rtx", "segment new.plan tiles -o masks"),
        "masks/0_mask.png",
        gpu=True,
    ),
    "sign": Trial(("sign --new fleet.key roads.plan",), "fleet.key.pub"),
    "all": Trial(("demo -o demo --size 512",), "demo/mask.png"),
}


def write_files(folder: Path) -> Path:
    """Everything that the commands of TRIALS take."""
    call("export", EMBEDDED, folder / "roads.onnx", "--tile", SIDE)
    shutil.copy(EMBEDDED, folder / "roads.th")
    folder_of(folder / "tiles", 5, SIDE)
    (folder / "labels").mkdir()
    for label in folder.glob("tiles/*_mask.png"):
        shutil.copy(label, folder / "labels")
    write(folder)  # roads.plan and its manifest
    (folder / "ground").mkdir()
    kind = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8", "crs": CRS.from_epsg(4326)}
    with rasterio.open(folder / "scene.tif", "w", **kind, transform=Affine(1e-5, 0, 15, 0, -1e-5, 49)) as file:
        file.write(np.full((3, SIDE, SIDE), 90, np.uint8))
    write_video(folder / "flight.ts", 20)
    write_log(folder / "flight.tlog")
    kind["count"] = 1
    with rasterio.open(folder / "mask.tif", "w", **kind, transform=Affine(1e-5, 0, 15, 0, -1e-5, 49)) as file:
        file.write(np.full((1, 8, SIDE), 255, np.uint8), window=Window(0, 60, SIDE, 8))
    shutil.copy(folder / "scene.tif", folder / "ground" / "scene_sat.tif")
    line = {"type": "LineString", "coordinates": [[15, 48.9995], [15.001, 48.9995]]}
    street = {"type": "Feature", "properties": {"highway": "residential"}, "geometry": line}
    (folder / "streets.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [street]}))
    shape = np.array([shapely.to_wkb(shapely.LineString(line["coordinates"]))], object)
    pyogrio.raw.write(folder / "streets.gpkg", shape, [], [], geometry_type="LineString", crs="EPSG:4326")
    return folder
