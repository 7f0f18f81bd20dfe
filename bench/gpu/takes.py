"""Does TensorRT-RTX take this GPU: what the library says of a plan, and whether it runs.

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
@click.option("--with", "options", default="", help="What dlink-build was told, for the line.")
@click.option("--append", type=click.Path(path_type=Path), help="Append the result as a line here.")
def main(plan: Path, options: str, append: Path | None) -> None:
    """Print what get_engine_validity says, and draw a mask. Exits with 1 where none comes out."""
    result: dict[str, Any] = {"takes": False, "listed": listed(), "with": options.split()}
    try:
        if not plan.exists():
            raise BadInput(f"{plan.name} could not be built")
        result |= asked(read_plan(plan)[0])
        with open_model(plan) as model:
            result["road"] = float((model.mask(picture(model.spec.tile)) > 0).mean())
        result["takes"] = True
    except Exception as e:  # NVIDIA's have no base of their own
        result["error"] = f"{type(e).__name__}: {e}"
    click.echo(json.dumps(result))
    append_row(append, result)
    if not result["takes"]:
        raise click.ClickException("TensorRT-RTX does not take this GPU")


def listed() -> bool:
    """Whether TensorRT-RTX names this GPU's compute capability."""
    trt = import_module("tensorrt_rtx")
    return f"SM{look_for_gpus().found[0].capability.replace('.', '')}" in trt.ComputeCapability.__members__


def asked(plan: bytes) -> dict[str, Any]:
    """What the library says before it loads a plan."""
    trt = import_module("tensorrt_rtx")
    answer, why = validity(trt, trt.Runtime(trt.Logger(trt.Logger.INFO)), plan)
    return {"validity": answer, "why": why}


if __name__ == "__main__":
    main()
