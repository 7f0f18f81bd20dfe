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
import pytest

from tests import fake_pycuda

API = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text())
ACTIVATIONS = 4096
SAID = {"int8": "Int8", "fp16": "Half", "fp32": "Float"}


def make(version):
    """The module `tensorrt` of a recorded version, or `tensorrt_rtx` as it is installed where that is named.

    `module.downgrade` builds everything in float32, as users report.
    """
    table = rtx_table() if version == "rtx" else API[version]
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    module.asked = {"flags": [], "network_flags": 0, "set": {}, "precisions": {}, "onnx": b"", "loaded": []}
    module.tag = b"vtrt" if version == "rtx" else b"ftrt"  # a plan's first bytes
    module.downgrade = False
    module.ends = "float32"  # the type of inputs and outputs
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


def rtx_table():
    """What the installed TensorRT-RTX has; skips the test where there is none."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'dlink[test]' on Linux x86-64")
    shown = lambda kind: [n + "()" * callable(getattr(kind, n)) for n in dir(kind) if not n.startswith("_")]  # noqa: E731
    return {"classes": {name: shown(kind) for name, kind in vars(rtx).items() if isinstance(kind, type)}}


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
        head = self.trt.tag + bytes(20) + bytes([*numbers, 0][:4])
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
        if plan[:4] not in (b"ftrt", b"vtrt"):
            return None
        engine = self.trt.ICudaEngine()
        engine.__dict__["model"] = onnx.load_from_string(plan[32:])
        return engine

    def get_engine_validity(self, plan):
        return self.trt.EngineValidity.VALID, 0


class Engine(Strict):
    def create_engine_inspector(self):
        return self.trt.EngineInspector(self.model)

    def create_execution_context(self, strategy=None):
        fake_pycuda.called("context")
        if getattr(self.trt, "no_contexts", False):
            return None
        return self.trt.IExecutionContext(self.model, managed(self.trt, strategy))

    def create_runtime_config(self):
        config = self.trt.asked["config"] = self.trt.IRuntimeConfig()
        return config

    def __getattr__(self, name):
        if name in self.members and name in ("device_memory_size", "device_memory_size_v2"):
            return ACTIVATIONS
        if name == "create_execution_context_without_device_memory" and f"{name}()" in self.members:
            return lambda: self.trt.IExecutionContext(self.model, True)
        return 2 if name == "num_io_tensors" else super().__getattr__(name)

    def get_tensor_format(self, name):
        return getattr(self.trt, "layout", self.trt.TensorFormat.LINEAR)

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
        return getattr(self.trt, self.trt.ends)


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


class RuntimeConfig(Open):
    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy


class Context(Strict):
    """Runs the model by ONNX Runtime on the memory of tests/fake_pycuda.py, when its stream gets there."""

    def __init__(self, model, managed):
        super().__init__(model)
        self.__dict__.update(managed=managed, memory=None, addresses={}, shape=None, changes=0, captured=None)

    def __getattr__(self, name):
        if name == "set_device_memory" and f"{name}()" in self.members:
            return lambda address, size: self.change(memory=address if size >= ACTIVATIONS else None)
        return super().__getattr__(name)

    def __setattr__(self, name, value):
        if name == "device_memory":
            self.change(memory=value)
        super().__setattr__(name, value)

    def change(self, **values):
        if any(self.__dict__[name] != value for name, value in values.items()):
            self.__dict__["changes"] += 1
            self.__dict__.update(values)

    def set_input_shape(self, name, shape):
        self.change(shape=tuple(shape))
        return True

    def set_tensor_address(self, name, address):
        self.change(addresses={**self.addresses, name: address})
        return True

    def execute_async_v3(self, stream):
        fake_pycuda.called("execute")
        if getattr(self.trt, "refuses_to_run", False):
            return False
        assert self.managed and self.memory, "the slot's memory is not given to the context"
        assert fake_pycuda.USERS.setdefault(self.memory, stream) == stream, "activations are shared by two streams"
        captured = fake_pycuda.HELD["stream"][stream].captured is not None
        state = self.shape, dict(self.addresses), self.memory, self.changes

        def work():
            assert not captured or self.changes == state[3], "a graph's context was changed after its capture"
            self.run(*state[:3])

        fake_pycuda.put(stream, work)
        return True

    def run(self, shape, addresses, memory):
        fake_pycuda.find(memory, ACTIVATIONS)[:] = 0
        dtype = np.dtype(self.trt.ends)
        source, result = (addresses[v.name] for v in (self.args[0].graph.input[0], self.args[0].graph.output[0]))
        x = fake_pycuda.find(source, int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
        found = np.ascontiguousarray(answer(self.args[0], x.astype(np.float32)).astype(dtype))
        fake_pycuda.find(result, found.nbytes)[:] = found.reshape(-1).view(np.uint8)
        if profiler := self.__dict__.get("profiler"):
            profiler.report_layer_time("/first/Conv + /Relu", 0.25)


SESSIONS = {}


def answer(model, x):
    """What an ONNX model says, by ONNX Runtime."""
    from dlink.trt_runtime.quiet_onnxruntime import onnxruntime

    if id(model) not in SESSIONS:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        SESSIONS[id(model)] = model, session  # which keeps the model, and so its number
    return SESSIONS[id(model)][1].run(None, {"image": x})[0]


def managed(trt, strategy):
    """Whether a context was asked for without memory of its own; TensorRT-RTX's is asked by a configuration."""
    if strategy is None:
        return False
    strategy = getattr(strategy, "strategy", strategy)
    return strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED


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
    "IRuntimeConfig": RuntimeConfig,
    "ILogger": Logger,
    "Logger": Logger,
    "IProgressMonitor": Open,
    "IProfiler": Open,
    "Refitter": Refitting,
    "OnnxParserRefitter": Refitting,
}
