"""Finds whether TensorRT-RTX accepts this GPU: what the library says about a plan, and whether the plan runs.

python -m dlink.bench.gpu.takes roads.plan [--append rows.jsonl]
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from dlink.bench.network import picture
from dlink.bench.rows import append_row
from dlink.runtime import BadInput, open_model
from dlink.trt_runtime.nvidia_driver import look_for_gpus
from dlink.trt_runtime.plan import read_plan
from dlink.trt_runtime.tensorrt_engine import validity


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--with", "options", default="", help="The options of dlink-build, for the result.")
@click.option("--append", type=click.Path(path_type=Path), help="Append the result as a line to this file.")
def main(plan: Path, options: str, append: Path | None) -> None:
    """Print the answer of get_engine_validity, and draw a mask. Exits with 1 if the plan gives no mask."""
    result: dict[str, Any] = {"takes": False, "listed": listed(), "with": options.split()}
    try:
        if not plan.exists():
            raise BadInput(f"{plan.name} could not be built")
        result |= validity_of(read_plan(plan)[0])
        with open_model(plan) as model:
            result["road"] = float((model.mask(picture(model.spec.tile)) > 0).mean())
        result["takes"] = True
    except Exception as e:  # NVIDIA's errors have no common base
        result["error"] = f"{type(e).__name__}: {e}"
    click.echo(json.dumps(result))
    append_row(append, result)
    if not result["takes"]:
        raise click.ClickException("TensorRT-RTX does not accept this GPU")


def listed() -> bool:
    """Whether TensorRT-RTX lists this GPU's compute capability."""
    trt = import_module("tensorrt_rtx")
    return f"SM{look_for_gpus().found[0].capability.replace('.', '')}" in trt.ComputeCapability.__members__


def validity_of(plan: bytes) -> dict[str, Any]:
    """The library's answer about a plan before it loads the plan."""
    trt = import_module("tensorrt_rtx")
    answer, why = validity(trt, trt.Runtime(trt.Logger(trt.Logger.INFO)), plan)
    return {"validity": answer, "why": why}


if __name__ == "__main__":
    main()
