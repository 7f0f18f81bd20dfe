"""A TensorRT that compiles nothing and has exactly the names of a real one, from tests/tensorrt_api.json.

Whatever dlink, or Polygraphy on its behalf, asks of a version that this version's bindings do not have is an
AttributeError here, as it would be there. What was asked for is kept in `module.asked`.
"""

import enum
import json
import re
import struct
import types
from pathlib import Path

import numpy as np
import onnx

API = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text())
SAID = {"int8": "Int8", "fp16": "Half", "fp32": "Float"}


def make(version):
    """The module `tensorrt` of a recorded version. `module.downgrade` builds everything in float32, as users report."""
    table = API[version]
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    module.asked = {"flags": [], "network_flags": 0, "set": {}, "precisions": {}, "onnx": b"", "loaded": []}
    module.downgrade = False
    for name, members in table["classes"].items():
        if any(re.fullmatch(r"[A-Z][A-Z0-9_]+", m) for m in members) and name not in KINDS:
            names = [m for m in members if re.fullmatch(r"[A-Z][A-Za-z0-9_]+", m)]
            setattr(module, name, enum.IntEnum(name, names, start=0))
    for name in ("float32", "float16", "int8", "int32"):
        setattr(module, name, getattr(module.DataType, {"float32": "FLOAT", "float16": "HALF"}.get(name, name.upper())))
    for name, kind in KINDS.items():
        if name in table["classes"]:
            members = frozenset(table["classes"][name])
            setattr(module, name, type(name, (kind,), {"trt": module, "members": members}))
    module.nptype = lambda dtype: {module.float32: np.float32, module.float16: np.float16}[dtype]
    module.init_libnvinfer_plugins = lambda logger, namespace: True
    return module


class Strict:
    """Has what its class has in the table, and nothing else."""

    def __init__(self, *args):
        self.__dict__["args"] = args

    def __getattr__(self, name):
        if name in self.members:
            return 0
        if name.startswith("__") or f"{name}()" not in self.members:
            raise AttributeError(f"{type(self).__name__} of TensorRT {self.trt.__version__} has no {name}")
        if name.startswith(("get_", "num_")):
            return lambda *args: 0
        return lambda *args, **named: self.trt.asked["set"].setdefault(f"{type(self).__name__}.{name}", args)

    def __setattr__(self, name, value):
        if name not in self.members:
            raise AttributeError(f"{type(self).__name__} of TensorRT {self.trt.__version__} has no {name}")
        self.trt.asked["set"][f"{type(self).__name__}.{name}"] = value
        self.__dict__[name] = value


class Open(Strict):
    """A class that Python code may extend: its own attributes are its own."""

    def __setattr__(self, name, value):
        self.__dict__[name] = value


class Logger(Open):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Builder(Strict):
    def create_network(self, flags=0):
        self.trt.asked["network_flags"] = flags
        return self.trt.INetworkDefinition()

    def create_builder_config(self):
        return self.trt.IBuilderConfig()

    def create_optimization_profile(self):
        return self.trt.IOptimizationProfile()

    def build_serialized_network(self, network, config):
        if monitor := config.__dict__.get("progress_monitor"):
            monitor.phase_start("all", None, 2)
            alive = monitor.step_complete("all", 0) and monitor.step_complete("all", 1)
            monitor.phase_finish("all")
            if not alive:
                return None
        self.trt.asked["precisions"] = {n.name: n.__dict__.get("precision") for n in network.layers}
        numbers = [int(n) for n in self.trt.__version__.split(".")]
        head = b"ftrt" + bytes(20) + bytes([*numbers, 0][:4])
        return head + struct.pack("<I", len(self.trt.asked["onnx"])) + self.trt.asked["onnx"]


class Config(Strict):
    def set_flag(self, flag):
        self.trt.asked["flags"].append(flag.name)

    def get_flag(self, flag):
        return flag.name in self.trt.asked["flags"]

    def create_timing_cache(self, data):
        return self.trt.ITimingCache(data)

    def get_timing_cache(self):
        return self.trt.ITimingCache(b"measured")

    def set_memory_pool_limit(self, pool, size):
        self.trt.asked["set"]["memory"] = (pool.name, size)

    def get_memory_pool_limit(self, pool):
        return 0


class HostMemory(bytes):
    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class TimingCache(Strict):
    def combine(self, other, ignore_mismatch):
        return True

    def serialize(self):
        return HostMemory(self.args[0])


class Profile(Strict):
    def set_shape(self, name, least, usual, most):
        self.trt.asked["profile"] = (name, tuple(least), tuple(usual), tuple(most))

    def __bool__(self):
        return True


class Layer(Strict):
    name = ""


class Tensor(Strict):
    pass


class Network(Strict):
    def load(self, model):
        self.__dict__["model"] = model
        self.__dict__["layers"] = []
        for node in model.graph.node:
            layer = self.trt.ILayer()
            layer.__dict__.update(name=node.name, type=0, precision_is_set=False, num_outputs=1)
            self.layers.append(layer)

    def get_input(self, index):
        tensor = self.trt.ITensor()
        value = self.model.graph.input[index]
        shape = tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim)
        tensor.__dict__.update(name=value.name, shape=shape, dtype=self.trt.float32, is_shape_tensor=False)
        return tensor

    def get_layer(self, index):
        return self.layers[index]

    def __getattr__(self, name):
        counts = {"num_layers": lambda: len(self.layers), "num_inputs": lambda: 1}
        return counts[name]() if name in counts and name in self.members else super().__getattr__(name)

    def __len__(self):
        return len(self.layers)

    def __getitem__(self, index):
        return self.layers[index]


class Parser(Strict):
    def __init__(self, network, logger):
        super().__init__(network, logger)

    def parse(self, data):
        self.trt.asked["onnx"] = data
        self.args[0].load(onnx.load_from_string(data))
        return True

    def __getattr__(self, name):
        return 0 if name == "num_errors" else super().__getattr__(name)


class Runtime(Strict):
    def deserialize_cuda_engine(self, plan):
        self.trt.asked["loaded"].append(plan)
        if plan[:4] != b"ftrt":
            return None
        engine = self.trt.ICudaEngine()
        engine.__dict__["model"] = onnx.load_from_string(plan[32:])
        return engine


class Engine(Strict):
    def create_engine_inspector(self):
        return self.trt.EngineInspector(self.model)

    def create_execution_context(self):
        return self.trt.IExecutionContext(self.model)

    def __getattr__(self, name):
        return 2 if name == "num_io_tensors" else super().__getattr__(name)

    def ends(self):
        return {v.name: v for v in (*self.model.graph.input, *self.model.graph.output)}

    def get_tensor_name(self, index):
        return list(self.ends())[index]

    def get_tensor_shape(self, name):
        return tuple(d.dim_value or -1 for d in self.ends()[name].type.tensor_type.shape.dim)

    def get_tensor_mode(self, name):
        mode = self.trt.TensorIOMode
        return mode.INPUT if name == self.get_tensor_name(0) else mode.OUTPUT

    def get_tensor_dtype(self, name):
        return self.trt.float32


class Inspector(Strict):
    def get_engine_information(self, form):
        """As TensorRT 8.6 to 10 write it (an excerpt is in NVIDIA/TensorRT#4020)."""
        from dlink.engine.graph import what_is_asked

        layers = []
        for asked in what_is_asked(self.args[0]):
            precision = "fp32" if self.trt.downgrade else asked.precision
            said = f"Row major linear {SAID[precision]} format"
            layers.append(
                {
                    "Name": f"Reformatting CopyNode for Input Tensor 0 to {asked.node}",
                    "LayerType": "Reformat",
                    "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
                }
            )
            layers.append(
                {
                    "Name": f"{asked.node} + /Relu",
                    "LayerType": "CaskConvolution",
                    "Inputs": [{"Name": "x", "Format/Datatype": said}],
                    "Outputs": [{"Name": "y", "Format/Datatype": said}],
                    "Weights": {"Type": SAID[precision], "Count": 9408},
                }
            )
        return json.dumps({"Layers": layers, "Bindings": []})


class Context(Strict):
    """Runs the model by ONNX Runtime on the memory of tests/fake_pycuda.py."""

    def set_input_shape(self, name, shape):
        self.__dict__["shape"] = tuple(shape)
        return True

    def set_tensor_address(self, name, address):
        self.__dict__.setdefault("addresses", {})[name] = address
        return True

    def execute_async_v3(self, stream):
        from tests.calibrated import run
        from tests.fake_pycuda import MEMORY

        source, result = (self.addresses[v.name] for v in (self.args[0].graph.input[0], self.args[0].graph.output[0]))
        size = int(np.prod(self.shape)) * 4
        x = np.frombuffer(MEMORY[source][:size], np.float32).reshape(self.shape)
        found = run(self.args[0], x).astype(np.float32).tobytes()
        MEMORY[result][: len(found)] = found
        if profiler := self.__dict__.get("profiler"):
            profiler.report_layer_time("/first/Conv + /Relu", 0.25)
        return True


class Refitting(Strict):
    def refit_from_file(self, path):
        self.trt.asked["refit"] = path
        return True

    def refit_cuda_engine(self):
        return True


KINDS = {
    "Builder": Builder,
    "IBuilderConfig": Config,
    "ITimingCache": TimingCache,
    "IOptimizationProfile": Profile,
    "INetworkDefinition": Network,
    "ILayer": Layer,
    "ITensor": Tensor,
    "OnnxParser": Parser,
    "Runtime": Runtime,
    "ICudaEngine": Engine,
    "EngineInspector": Inspector,
    "IExecutionContext": Context,
    "ILogger": Logger,
    "Logger": Logger,
    "IProgressMonitor": Open,
    "IProfiler": Open,
    "Refitter": Refitting,
    "OnnxParserRefitter": Refitting,
}
