"""Record what TensorRT's Python bindings have: python tensorrt_api.py WHEEL... > tensorrt_api.json

A wheel of bindings alone (`tensorrt_bindings` 8.6.1, `tensorrt_cu12_bindings` since 10.0) is 1 MB, that of `tensorrt`
8.5.2.2 has all of TensorRT in it. The extension module loads where libnvinfer does not exist, if empty libraries of
that name hold the few functions that it links to. 8.5 has none for Python 3.11: that of 3.10 is told that it is one,
which does for its names. So the names are those of NVIDIA's own files, and nothing of TensorRT is run. What can be
called has () behind it.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CLASSES = """
Builder BuilderFlag ComputeCapability DataType DeviceType EngineCapability EngineInspector
ExecutionContextAllocationStrategy HardwareCompatibilityLevel
IBuilderConfig ICudaEngine IExecutionContext ILayer ILogger INetworkDefinition IOptimizationProfile IProfiler
IProgressMonitor ITensor ITimingCache LayerInformationFormat LayerType Logger MemoryPoolType
NetworkDefinitionCreationFlag OnnxParser OnnxParserFlag OnnxParserRefitter PreviewFeature ProfilingVerbosity
QuantizationFlag Refitter Runtime TacticSource TensorFormat TensorIOMode TensorLocation
"""
LOAD = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("tensorrt", sys.argv[1])
trt = importlib.util.module_from_spec(spec)
spec.loader.exec_module(trt)
"""
LOOK = f"""
names = lambda thing: [n for n in dir(thing) if not n.startswith("_")]
shown = lambda thing: sorted(n + "()" * callable(getattr(thing, n)) for n in names(thing))
classes = {{c: shown(getattr(trt, c)) for c in {CLASSES.split()} if hasattr(trt, c)}}
print(json.dumps({{"names": names(trt), "classes": classes}}))
"""
PYTHON = re.compile(rb"\x003\.\d+\x00")  # which pybind11 compares when the module loads
LINKED = re.compile(r"create(Infer|NvOnnx)|get(Nv|Plugin|Builder)|initLib|_ZN\d+nv(uff|caffe)")  # to NVIDIA's libraries


def run(*command: object) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


@contextmanager
def bindings(wheel: Path) -> Iterator[Callable[[str], str]]:
    """A function that runs Python code where the wheel's extension module is `trt`, and gives what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with zipfile.ZipFile(wheel) as files:
            inside = next(name for name in files.namelist() if name.endswith("/tensorrt.so"))
            module = Path(files.extract(inside, home))
        module.write_bytes(PYTHON.sub(b"\0%d.%d\0" % sys.version_info[:2], module.read_bytes(), count=1))
        lines = run("nm", "-D", "--undefined-only", module).splitlines()
        ours = {s for line in lines if LINKED.match(s := line.split()[-1].partition("@")[0])}
        (home / "empty.s").write_text("".join(f".globl {s}\n{s}: ret\n" for s in sorted(ours)))
        for library in re.findall(r"\[(libnv[^]]+)\]", run("readelf", "-d", module)):
            run("cc", "-shared", "-nostdlib", "-o", home / library, home / "empty.s")
        yield lambda code: run("env", f"LD_LIBRARY_PATH={home}", sys.executable, "-c", LOAD + code, module)


def record(wheels: list[str], look: str) -> str:
    """JSON of what the code prints for each wheel, itself JSON: by version, a line each."""
    rows = {}
    for wheel in map(Path, wheels):
        with bindings(wheel) as ask:
            rows[wheel.name.split("-")[1]] = {"origin": wheel.name, **json.loads(ask(look))}
    ordered = sorted(rows, key=lambda version: [int(n) for n in re.findall(r"\d+", version)])
    return "{" + ",\n".join(f'"{version}": {json.dumps(rows[version])}' for version in ordered) + "}"


if __name__ == "__main__":
    print(record(sys.argv[1:], LOOK))
