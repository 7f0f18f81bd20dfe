"""Other processors than this one: `python -m tests.support.processors AVX2 NODE...` runs tests as they would run there.

What is imitated, each proven before a test runs by what the library itself reports:
- OpenVINO's kernels, and those that PyTorch takes from oneDNN, by ONEDNN_MAX_CPU_ISA. The two have a oneDNN each.
- PyTorch's own kernels, by ATEN_CPU_CAPABILITY.
- OpenVINO's choice of bfloat16 for files in reduced precision. It asks the processor itself, whatever oneDNN was told,
  and then finds no kernels; so it is told here what it would have found: no bfloat16, and float32 unless asked.

What cannot be: ONNX Runtime's kernels (MLAS has no such setting), MKL's on processors of others than Intel, NumPy's and
OpenCV's, and processors that have more than this one.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
ISA = "onednn_verbose,v1,info,cpu,isa:"


@dataclass(frozen=True)
class Processor:
    """What a kind of x86 processor has."""

    name: str
    flags: tuple[str, ...]  # of /proc/cpuinfo, that imitating it needs
    onednn: str  # ONEDNN_MAX_CPU_ISA
    isa: str  # how oneDNN calls that
    aten: str  # ATEN_CPU_CAPABILITY
    kernels: str  # a part of the names of OpenVINO's convolutions
    bfloat16: bool = False
    vnni: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that imitates it. With `profile_create` oneDNN says what it takes itself to be on."""
        return {
            **os.environ,
            "ONEDNN_MAX_CPU_ISA": self.onednn,
            "ONEDNN_VERBOSE": "profile_create",
            "ATEN_CPU_CAPABILITY": self.aten,
        }


SKYLAKE = "Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions"
WITH_VNNI = "Intel AVX-512 with Intel DL Boost"
WITH_BF16 = f"{WITH_VNNI} and bfloat16 support"
AVX512 = ("avx512bw", "avx512vl", "avx512dq")
PROCESSORS = {
    p.name: p
    for p in (
        Processor("AVX2", ("avx2",), "AVX2", "Intel AVX2", "avx2", "avx2", vnni=False),
        Processor("AVX2-VNNI", ("avx_vnni",), "AVX2_VNNI", "Intel AVX2 with Intel DL Boost", "avx2", "avx2"),
        Processor("AVX-512", AVX512, "AVX512_CORE", SKYLAKE, "avx512", "avx512", vnni=False),
        Processor("AVX-512-VNNI", (*AVX512, "avx512_vnni"), "AVX512_CORE_VNNI", WITH_VNNI, "avx512", "avx512"),
        Processor("AVX-512-BF16", (*AVX512, "avx512_bf16"), "AVX512_CORE_BF16", WITH_BF16, "avx512", "avx512", True),
        Processor("AMX", ("amx_bf16", "amx_int8"), "AVX512_CORE_AMX", "Intel AMX", "avx512", "amx", True),
    )
}


def lacks(processor: Processor) -> list[str]:
    """The flags that this machine's processor lacks; all of them where the system does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split(":")[1].split()}
    return [flag for flag in processor.flags if flag not in flags]


def run_as(processor: Processor, nodes: list[str]) -> subprocess.CompletedProcess[str]:
    """These tests in a process of their own."""
    command = [sys.executable, "-m", "tests.support.processors", processor.name, *nodes]
    return subprocess.run(command, cwd=ROOT, env=processor.environment, capture_output=True, text=True)


def become(processor: Processor) -> None:
    """Tell OpenVINO what the environment can't, and see that both libraries took it."""
    import torch

    from dlink.openvino_runtime.saturation import saturates

    assert torch.backends.cpu.get_cpu_capability() == processor.aten.upper()
    with torch.inference_mode():
        torch.nn.Conv2d(16, 32, 3)(torch.zeros(4, 16, 64, 64))  # by oneDNN, which says what it is on
    if not processor.bfloat16:
        without_bfloat16()
    assert saturates() != processor.vnni
    kernel = convolution()
    assert processor.kernels in kernel.split("_"), kernel
    assert kernel.endswith("_bf16" if processor.bfloat16 else "_f32"), kernel


def without_bfloat16() -> None:
    """Have OpenVINO say and do what it does on a processor that has none."""
    from dlink.openvino_runtime.quiet_openvino import openvino

    own_property, own_compile = openvino.Core.get_property, openvino.Core.compile_model

    def get_property(self: Any, *names: str) -> Any:
        value = own_property(self, *names)
        return [v for v in value if v not in ("BF16", "FP16")] if names[1:] == ("OPTIMIZATION_CAPABILITIES",) else value

    def compile_model(self: Any, model: Any, device: str, config: dict[str, Any], **more: Any) -> Any:
        return own_compile(self, model, device, {"INFERENCE_PRECISION_HINT": "f32", **config}, **more)

    openvino.Core.get_property, openvino.Core.compile_model = get_property, compile_model


def convolution() -> str:
    """What OpenVINO calls the kernel that it takes for a convolution left to its own precision."""
    from dlink.openvino_runtime.quiet_openvino import core, openvino

    ops = openvino.opset13
    x = ops.parameter([1, 16, 64, 64], np.float32)
    y = ops.convolution(x, np.ones((32, 16, 3, 3), np.float32), [1, 1], [1, 1], [1, 1], [1, 1])
    graph = core().compile_model(openvino.Model([y], [x], "convolution"), "CPU", {}).get_runtime_model()
    infos = [op.get_rt_info() for op in graph.get_ops()]
    [kernel] = [i["primitiveType"].astype(str) for i in infos if i["layerType"].astype(str) == "Convolution"]
    return str(kernel)


def main(name: str, *nodes: str) -> int:
    become(PROCESSORS[name])
    import pytest

    return int(pytest.main(["-p", "no:cacheprovider", *nodes]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
