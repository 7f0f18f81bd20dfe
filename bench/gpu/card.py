"""Describes the GPU, loads dlink's kernels on it, and measures its matrix speed, which scales limits between cards.

python -m dlink.bench.gpu.card [--append rows.jsonl]
"""

import json
import shutil
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

import click
import pycuda.driver as cuda

from dlink.bench.rows import append_row
from dlink.trt_runtime.kernels.launch import PTX
from dlink.trt_runtime.nvidia_driver import look_for_gpus
from dlink.trt_runtime.primary_context import pycudas

SIDE, RUNS = 8192, 10  # of the matrices


@click.command()
@click.option("--append", type=click.Path(path_type=Path), help="Append the result as a line to this file.")
def main(append: Path | None) -> None:
    """Print the driver's description of the GPU, and load kernels.ptx."""
    gpus = look_for_gpus()
    result: dict[str, Any] = {
        "cuda": gpus.driver,
        "memory": gpus.found[0].memory,
        "said_by_the_driver": nvidia_smi_line(),
    }
    with pycudas():
        module = cuda.module_from_buffer(PTX.read_bytes())
        for kernel in ("spread", "gather"):
            for dtype in ("float32", "float16"):
                module.get_function(f"{kernel}_{dtype}")
        result["ptx"] = "loads"
    result["matrix_tflops"] = matrix_speed()
    click.echo(json.dumps(result))
    append_row(append, result)


def nvidia_smi_line() -> str:
    """A line of nvidia-smi with clocks, power limit and more; empty without nvidia-smi."""
    if not (program := shutil.which("nvidia-smi")):
        return ""
    what = "name,driver_version,clocks.max.sm,clocks.max.mem,power.limit,pcie.link.gen.max,pcie.link.width.max"
    done = subprocess.run([program, f"--query-gpu={what}", "--format=csv,noheader"], capture_output=True, text=True)
    return done.stdout.strip()


def matrix_speed() -> float | None:
    """TFLOP/s of a product of two bfloat16 matrices in PyTorch; None if PyTorch has no GPU."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    if not torch.cuda.is_available():
        return None
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for run in range(-3, RUNS):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before.record()
        a @ b
        after.record()
        after.synchronize()
        if run >= 0:
            times.append(before.elapsed_time(after) / 1e3)
    return float(2 * SIDE**3 / median(times) / 1e12)


if __name__ == "__main__":
    main()
