"""The one table of the libraries that dlink can use, and of the extras that install them.

Tests compare pyproject.toml's extras and the table of docs/install.md with it. dlink-doctor's rows and abilities and
the commands' "this needs ..." come from it. A need is a library; an extra is what `pip install 'dlink[name]'` adds.
"""

from dataclasses import dataclass

from dlink.runtime.versions import TENSORRT_DISTRIBUTIONS

NVIDIA_INDEX = "pip install tensorrt (from NVIDIA's own package index, see its installation guide)"


@dataclass(frozen=True, kw_only=True)
class Need:
    """A library that dlink can use, and how to get it."""

    name: str
    package: str  # the name to import
    distributions: tuple[str, ...]  # any of these; an extra installs the first
    least: str  # the lowest version, as in pyproject.toml
    use: str
    get: str = ""  # how to get it, if no extra installs it
    note: str = ""  # about its installation
    tried: str = ""  # the module to import in a process of its own, if that is quick and safe


@dataclass(frozen=True, kw_only=True)
class Extra:
    """The purpose of an extra. Its libraries are names of NEEDS."""

    can: str = ""  # the task it is for, in dlink-doctor's words; empty for a bundle of other extras
    needs: tuple[str, ...] = ()  # libraries for that task, with those of included extras
    also: tuple[str, ...] = ()  # libraries for further tasks
    includes: tuple[str, ...] = ()  # extras that it installs
    beside: tuple[str, ...] = ()  # extras that must be installed too
    commands: tuple[str, ...] = ()  # commands that it enables; a test runs the first
    modules: tuple[str, ...] = ()  # dlink's modules that a program imports for the task


NEEDS = (
    Need(
        name="numpy", package="numpy", distributions=("numpy",), least="1.24", use="everything", get="pip install numpy"
    ),
    Need(
        name="OpenVINO",
        package="openvino",
        distributions=("openvino",),
        least="2024.6",
        use="run models on the CPU",
        tried="openvino",
    ),
    Need(
        name="OpenCV",
        package="cv2",
        distributions=(
            "opencv-python-headless",
            "opencv-python",
            "opencv-contrib-python-headless",
            "opencv-contrib-python",
        ),
        least="4.8",
        use="read and write pictures",
        tried="cv2",
    ),
    # Below 2.10 a crafted checkpoint could get past torch.load(weights_only=True).
    Need(name="PyTorch", package="torch", distributions=("torch",), least="2.10", use="export, train"),
    Need(name="ONNX", package="onnx", distributions=("onnx",), least="1.21", use="export, INT8"),
    Need(
        name="ONNX Runtime",
        package="onnxruntime",
        distributions=("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
        least="1.20",
        use="export, INT8",
    ),
    Need(name="safetensors", package="safetensors", distributions=("safetensors",), least="0.5", use="export, train"),
    Need(name="scipy", package="scipy", distributions=("scipy",), least="1.11", use="scores, INT8, maps"),
    Need(name="scikit-image", package="skimage", distributions=("scikit-image",), least="0.22", use="scores, INT8"),
    Need(
        name="shapely",
        package="shapely",
        distributions=("shapely",),
        least="2.0",
        use="scores, INT8, OpenStreetMap, maps",
    ),
    Need(name="pyogrio", package="pyogrio", distributions=("pyogrio",), least="0.9", use="GeoPackage, FlatGeobuf"),
    Need(name="rasterio", package="rasterio", distributions=("rasterio",), least="1.3", use="rasters"),
    Need(name="PyAV", package="av", distributions=("av",), least="14", use="live video"),
    Need(name="pymavlink", package="pymavlink", distributions=("pymavlink",), least="2.4.40", use="MAVLink telemetry"),
    Need(
        name="osmium", package="osmium", distributions=("osmium",), least="4.0", use="OpenStreetMap: masks, new roads"
    ),
    Need(
        name="osmnx",
        package="osmnx",
        distributions=("osmnx",),
        least="2.0",
        use="fetch from OpenStreetMap (Python 3.11 on)",
    ),
    Need(name="Dask", package="distributed", distributions=("distributed",), least="2024.8", use="maps on a cluster"),
    Need(name="Ray", package="ray", distributions=("ray",), least="2.40", use="maps on a cluster"),
    Need(name="Polygraphy", package="polygraphy", distributions=("polygraphy",), least="0.53.6", use="build plans"),
    Need(name="cryptography", package="cryptography", distributions=("cryptography",), least="43", use="sign plans"),
    Need(
        name="TensorRT",
        package="tensorrt",
        distributions=TENSORRT_DISTRIBUTIONS["tensorrt"],
        least="8.5",
        use="plans for NVIDIA GPUs",
        get=NVIDIA_INDEX,
    ),
    Need(
        name="TensorRT-RTX",
        package="tensorrt_rtx",
        distributions=TENSORRT_DISTRIBUTIONS["tensorrt-rtx"],
        least="1.7",
        use="plans for GeForce RTX",
    ),
    Need(
        name="pycuda",
        package="pycuda",
        distributions=("pycuda",),
        least="2024.1",
        use="run plans",
        note="compiled there: needs a C++ compiler and the CUDA toolkit",
        tried="pycuda.driver",
    ),
)
BY_NAME = {need.name: need for need in NEEDS}

EXTRAS = {  # in the order of docs/install.md
    "cpu": Extra(
        can="run on the CPU",
        needs=("OpenVINO", "OpenCV"),
        commands=("segment", "check", "bench", "scenes", "layers"),
        modules=("openvino_runtime.openvino_backend", "imagery.pictures", "scenes"),
    ),
    "export": Extra(
        can="export a checkpoint",
        needs=("PyTorch", "ONNX", "ONNX Runtime", "safetensors", "OpenCV"),
        commands=("export",),
        modules=("export.export", "nets.torch_backend", "nets.embedded"),
    ),
    "calib": Extra(
        can="make INT8 files",
        needs=("ONNX", "ONNX Runtime", "OpenVINO", "OpenCV", "scipy", "scikit-image", "shapely", "pyogrio"),
        includes=("accuracy",),
        commands=("calibrate", "finetune"),
        modules=("calib.calibrate",),
    ),
    "accuracy": Extra(
        can="score roads",
        needs=("scipy", "scikit-image", "shapely", "pyogrio", "OpenCV"),
        commands=("score", "tune", "scout"),
        modules=(
            "accuracy.score",
            "accuracy.road_graphs.connectivity",
            "accuracy.report.page",
            "accuracy.tune",
            "accuracy.scout",
        ),
    ),
    "geo": Extra(
        can="read rasters", needs=("rasterio",), beside=("cpu",), commands=("segment",), modules=("imagery.raster",)
    ),
    "maps": Extra(
        can="draw roads as lines",
        needs=("rasterio", "pyogrio", "shapely", "scipy"),
        commands=("vectorize", "map"),
        modules=("maps.vectorize", "maps.job.run"),
    ),
    "maps-dask": Extra(
        can="make maps on a Dask cluster",
        needs=("Dask", "rasterio", "pyogrio", "shapely", "scipy"),
        includes=("maps",),
        beside=("cpu",),
        commands=("map",),
        modules=("maps.job.run", "maps.job.dask_engine"),
    ),
    "maps-ray": Extra(
        can="make maps on a Ray cluster",
        needs=("Ray", "rasterio", "pyogrio", "shapely", "scipy"),
        includes=("maps",),
        beside=("cpu",),
        commands=("map",),
        modules=("maps.job.run", "maps.job.ray_engine"),
    ),
    "live": Extra(
        can="follow live video",
        needs=("PyAV", "OpenCV"),
        beside=("cpu",),
        commands=("live", "replay"),
        modules=("live", "live.flight", "live.page.server", "live.session.again"),
    ),
    "mavlink": Extra(
        can="take a vehicle's MAVLink",
        needs=("pymavlink",),
        beside=("cpu", "live"),
        commands=("live",),
        modules=("live.telemetry.mavlink",),
    ),
    "train": Extra(
        can="train a network",
        needs=("PyTorch", "safetensors", "OpenCV"),
        commands=("train", "distil", "slim", "finetune"),
        modules=("training.loop", "nets.embedded"),
    ),
    "osm": Extra(
        can="draw OpenStreetMap",
        needs=("osmium", "rasterio", "pyogrio", "shapely", "OpenCV"),
        also=("osmnx",),
        commands=("osm", "spacenet"),
        modules=("training.places", "training.streets", "training.pseudo", "training.spacenet"),
    ),
    "build": Extra(
        can="build TensorRT plans",
        needs=("Polygraphy", "ONNX"),
        commands=("build", "layers", "inspect"),
        modules=("engine.build", "engine.triton"),
    ),
    "trt": Extra(
        can="run TensorRT plans",
        needs=("TensorRT", "pycuda", "OpenCV"),
        includes=("build",),
        commands=("segment",),
        modules=("trt_runtime.tensorrt_backend",),
    ),
    "rtx": Extra(
        can="run TensorRT plans",
        needs=("TensorRT-RTX", "pycuda", "OpenCV"),
        includes=("build",),
        commands=("segment",),
        modules=("trt_runtime.tensorrt_backend",),
    ),
    "sign": Extra(can="sign plans", needs=("cryptography",), commands=("sign",), modules=("trt_runtime.signing",)),
    "all": Extra(
        includes=("cpu", "export", "calib", "accuracy", "geo", "live", "maps", "mavlink", "train"),
        commands=("demo",),
        modules=("bench.demo",),
    ),
}


def own(extra: str) -> list[Need]:
    """The needs that an extra installs itself, without its included extras: what pyproject.toml lists."""
    row = EXTRAS[extra]
    included = [name for other in row.includes for name in EXTRAS[other].needs]
    return [BY_NAME[name] for name in (*row.needs, *row.also) if name not in included and not BY_NAME[name].get]


def brought(extra: str) -> list[Need]:
    """All needs that pip installs with an extra."""
    return own(extra) + [need for other in EXTRAS[extra].includes for need in brought(other)]


def how_to_get(package: str, command: str = "") -> str:
    """The command line that installs a package for a dlink command; empty if the package is not in NEEDS."""
    need = next((need for need in NEEDS if need.package == package), None)
    if need is None or need.get:
        return need.get if need else ""
    fit = [name for name, extra in EXTRAS.items() if command in extra.commands and need in brought(name)]
    [first, *_] = fit or [name for name in EXTRAS if need in own(name)]
    line = f"pip install 'dlink[{first}]'"
    return f"{line} ({need.note})" if need.note else line
