"""A TensorRT that compiles nothing and has exactly the names of a real one, from tests/support/tensorrt_api.json.

Whatever dlink, or Polygraphy on its behalf, asks of a version that this version's bindings do not have is an
AttributeError here, as it would be there. What was asked for is kept in `module.asked`.

A plan is a head and its ONNX file. Of the head, 24 bytes are as TensorRT writes them; then come the version, whether
contexts may share the optimisation profile, and that profile's largest batch.
"""

import enum
import functools
import json
import re
import types
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support import fake_pycuda

API = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text())
ACTIVATIONS = 4096
SAID = {"int8": "Int8", "fp16": "Half", "fp32": "Float"}


def plan_of(version, data, sharing, most, tag=b"ftrt"):
    """A plan's bytes."""
    numbers = [int(n) for n in version.split(".")]
    return tag + bytes(20) + bytes([*numbers, 0][:4]) + bytes([sharing, 0]) + most.to_bytes(2, "little") + data


def make(version):
    """The module `tensorrt` of a recorded version, or `tensorrt_rtx` as it is installed where that is named.

    `module.downgrade` builds everything in float32, as users report.
    """
    table = rtx_table() if version == "rtx" else API[version]
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    module.asked = {"flags": [], "network_flags": 0, "set": {}, "precisions": {}, "onnx": b"", "loaded": []}
    module.asked |= {"previews": {}, "compiled": []}
    module.tag = b"vtrt" if version == "rtx" else b"ftrt"  # a plan's first bytes
    module.downgrade = False
    module.ends = None  # the type of inputs and outputs, where it is not the ONNX file's
    module.validity = "VALID", ()  # what TensorRT-RTX says of a plan, and for which reasons
    for name, members in table["classes"].items():
        if any(re.fullmatch(r"[A-Z][A-Z0-9_]+", m) for m in members) and name not in KINDS:
            names = [m for m in members if re.fullmatch(r"[A-Z][A-Za-z0-9_]+", m)]
            values = table.get("values", {}).get(name) or {n: i for i, n in enumerate(names)}
            setattr(module, name, enum.IntEnum(name, values))
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
    kinds = {name: kind for name, kind in vars(rtx).items() if isinstance(kind, type)}
    members = {name: getattr(kind, "__members__", {}) for name, kind in kinds.items()}
    values = {name: {n: int(v) for n, v in found.items()} for name, found in members.items() if found}
    return {"classes": {name: shown(kind) for name, kind in kinds.items()}, "values": values}


def without_arrays(call):
    """The call, which neither takes nor gives an array: of NumPy 2 older bindings give wrong ones, see doctor.py."""

    @functools.wraps(call)
    def checked(*args, **named):
        given = call(*args, **named)
        assert not any(isinstance(value, np.ndarray) for value in (*args, *named.values(), given)), call.__name__
        return given

    return checked


class Strict:
    """Has what its class has in the table, and nothing else."""

    def __init_subclass__(cls):
        for name, call in list(vars(cls).items()):
            if isinstance(call, types.FunctionType) and not name.startswith("__"):
                setattr(cls, name, without_arrays(call))

    def __init__(self, *args):
        self.__dict__["args"] = args

    def __getattr__(self, name):
        if name in self.members:
            return 0
        if name.startswith("__") or f"{name}()" not in self.members:
            raise AttributeError(f"{type(self).__name__} of TensorRT {self.trt.__version__} has no {name}")
        if name.startswith(("get_", "num_")):
            return lambda *args: 0
        return without_arrays(
            lambda *args, **named: self.trt.asked["set"].setdefault(f"{type(self).__name__}.{name}", args)
        )

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
        if "SPARSE_WEIGHTS" in self.trt.asked["flags"]:
            self.say_sparse([n.name for n in network.model.graph.node if n.op_type == "Conv"])
        self.trt.asked["precisions"] = {n.name: n.__dict__.get("precision") for n in network.layers}
        sharing = since(self.trt, 9) or self.trt.asked["previews"].get("PROFILE_SHARING_0806", False)
        most = self.trt.asked["profile"][3][0]
        return plan_of(self.trt.__version__, self.trt.asked["onnx"], sharing, most, self.trt.tag)

    def say_sparse(self, names):
        """The lines of NVIDIA's guide, "Structured Sparsity"."""
        logger, info = self.args[0], self.trt.Logger.INFO
        logger.log(info, f"(Sparsity) Layers eligible for sparse math: {', '.join(names)}")
        logger.log(info, f"(Sparsity) TRT inference plan picked sparse implementation for layers: {names[-1]}")
        logger.log(info, "Total Activation Memory: 4096")


def since(trt, major):
    """Whether it is full TensorRT of that version or newer, or TensorRT-RTX, which has all that 10 has."""
    return hasattr(trt, "EngineValidity") or int(trt.__version__.split(".")[0]) >= major


class Config(Strict):
    def set_preview_feature(self, feature, on):
        self.trt.asked["previews"][feature.name] = on

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


def type_of(value):
    """ "float32" or "float16" of an end of an ONNX file."""
    return onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name


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
        dtype = getattr(self.trt, type_of(value))
        tensor.__dict__.update(name=value.name, shape=shape, dtype=dtype, is_shape_tensor=False)
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
        most = int.from_bytes(plan[30:32], "little")
        engine.__dict__.update(model=onnx.load_from_string(plan[32:]), sharing=plan[28], most=most)
        engine.__dict__["contexts"] = weakref.WeakSet()
        return engine

    def __getattr__(self, name):
        if name == "get_engine_validity" and f"{name}()" in self.members:
            return self.validity
        return super().__getattr__(name)

    def validity(self, plan):
        answer, reasons = self.trt.validity
        bits = sum(getattr(self.trt.EngineInvalidityDiagnostics, name) for name in reasons)
        return getattr(self.trt.EngineValidity, answer), int(bits)


class Engine(Strict):
    def create_engine_inspector(self):
        return self.trt.EngineInspector(self.model)

    def create_execution_context(self, strategy=None):
        return self.make(managed(self.trt, strategy), strategy)

    def make(self, managed, config=None):
        fake_pycuda.called("context")
        if getattr(self.trt, "no_contexts", False):
            return None
        context = self.trt.IExecutionContext(self, managed, config)
        self.contexts.add(context)
        return context

    def profile_is_free(self, context=None):
        """Whether a context may have the one profile: the first may, and others where it is shared."""
        return self.sharing or not any(c.profile == 0 for c in self.contexts if c is not context)

    def create_runtime_config(self):
        config = self.trt.asked["config"] = self.trt.IRuntimeConfig()
        return config

    def __getattr__(self, name):
        if name in self.members and name in ("device_memory_size", "device_memory_size_v2"):
            return ACTIVATIONS
        if name == "create_execution_context_without_device_memory" and f"{name}()" in self.members:
            return lambda: self.make(True)
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
        return getattr(self.trt, self.trt.ends or type_of(self.ends()[name]))


class Inspector(Strict):
    def get_engine_information(self, form):
        """As TensorRT 8.6 to 10 write it (an excerpt is in NVIDIA/TensorRT#4020)."""
        from dlink.onnx_graph.model import OnnxModel

        layers = []
        for asked in OnnxModel(self.args[0], None, None).asked:
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


class RuntimeConfig(Strict):
    def set_execution_context_allocation_strategy(self, strategy):
        self.__dict__["strategy"] = strategy

    def create_runtime_cache(self):
        return self.trt.IRuntimeCache()

    def set_runtime_cache(self, cache):
        self.__dict__["cache"] = cache
        return True


class RuntimeCache(Strict):
    """Holds the batches that kernels have been compiled for."""

    def __init__(self):
        super().__init__()
        self.__dict__["batches"] = set()

    def serialize(self):
        return HostMemory(b"kernels" + bytes(sorted(self.batches)))

    def deserialize(self, data):
        if not data.startswith(b"kernels"):
            return False
        self.batches.update(data[7:])
        return True


class Context(Strict):
    """Runs the model by ONNX Runtime on the memory of tests/support/fake_pycuda.py, when its stream gets there."""

    def __init__(self, owner, managed, config=None):
        super().__init__()
        # 10 gives every context the profile; before, all but the first one must be told to take it.
        profile = 0 if since(self.trt, 10) or not any(c.profile == 0 for c in owner.contexts) else -1
        self.__dict__.update(owner=owner, managed=managed, config=config, profile=profile, memory=None, addresses={})
        self.__dict__.update(shape=None, changes=0, captured=None)

    def __getattr__(self, name):
        if name == "set_device_memory" and f"{name}()" in self.members:
            return lambda address, size: self.change(memory=address if size >= ACTIVATIONS else None)
        if name == "active_optimization_profile":
            return self.profile
        return super().__getattr__(name)

    def __setattr__(self, name, value):
        if name == "device_memory":
            self.change(memory=value)
        super().__setattr__(name, value)

    def change(self, **values):
        if any(self.__dict__[name] != value for name, value in values.items()):
            self.__dict__["changes"] += 1
            self.__dict__.update(values)

    def set_optimization_profile_async(self, index, stream):
        assert stream in fake_pycuda.HELD["stream"], "no stream"
        if index != 0 or not self.owner.profile_is_free(self):
            return False
        self.change(profile=0, shape=None)
        return True

    def set_input_shape(self, name, shape):
        least = [1, *self.owner.get_tensor_shape(self.owner.get_tensor_name(0))[1:]]
        most = [self.owner.most, *least[1:]]
        assert not fake_pycuda.capturing(), "a shape is set amid a capture"
        if self.profile < 0 or name != self.owner.get_tensor_name(0):
            return False
        if not all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True)):
            return False
        self.change(shape=tuple(shape))
        if cache := getattr(self.config, "cache", None):
            eager = self.trt.DynamicShapesKernelSpecializationStrategy.EAGER
            assert self.config.dynamic_shapes_kernel_specialization_strategy == eager
            if shape[0] not in cache.batches:
                self.trt.asked["compiled"].append(shape[0])
                cache.batches.add(shape[0])
        return True

    def set_tensor_address(self, name, address):
        if getattr(self.trt, "refuses_addresses", False):
            return False
        self.change(addresses={**self.addresses, name: address})
        return True

    def execute_async_v3(self, stream):
        fake_pycuda.called("execute")
        if getattr(self.trt, "refuses_to_run", False):
            return False
        if self.profile < 0 or self.shape is None or set(self.addresses) != set(self.owner.ends()):
            return False
        assert self.managed and self.memory, "the slot's memory is not given to the context"
        assert fake_pycuda.USERS.setdefault(self.memory, stream) == stream, "activations are shared by two streams"
        captured = fake_pycuda.HELD["stream"][stream].captured is not None
        state = self.shape, dict(self.addresses), self.memory, self.changes
        alive = weakref.ref(self)

        def work():
            context = alive()
            assert context, "a context was destroyed before its work was done"
            assert not captured or context.changes == state[3], "a graph's context was changed after its capture"
            context.run(*state[:3])

        fake_pycuda.put(stream, work)
        return True

    def run(self, shape, addresses, memory):
        fake_pycuda.find(memory, ACTIVATIONS)[:] = 0
        model = self.owner.model
        ends = model.graph.input[0], model.graph.output[0]
        reads, gives = (np.dtype(self.trt.ends or type_of(end)) for end in ends)
        source, result = (addresses[end.name] for end in ends)
        x = fake_pycuda.find(source, int(np.prod(shape)) * reads.itemsize).view(reads).reshape(shape)
        found = np.ascontiguousarray(answer(model, x).astype(gives))
        fake_pycuda.find(result, found.nbytes)[:] = found.reshape(-1).view(np.uint8)
        if profiler := self.__dict__.get("profiler"):
            profiler.report_layer_time("/first/Conv + /Relu", 0.25)


SESSIONS = {}


def answer(model, x):
    """What an ONNX model says, by ONNX Runtime."""
    from dlink.onnx_graph.quiet_onnxruntime import onnxruntime

    if id(model) not in SESSIONS:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        SESSIONS[id(model)] = model, session  # which keeps the model, and so its number
    return SESSIONS[id(model)][1].run(None, {"image": x.astype(type_of(model.graph.input[0]))})[0]


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
    "IRuntimeCache": RuntimeCache,
    "ILogger": Logger,
    "Logger": Logger,
    "IProgressMonitor": Open,
    "IProfiler": Open,
    "Refitter": Refitting,
    "OnnxParserRefitter": Refitting,
}
