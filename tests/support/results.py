"""Results of dlink-bench, with what is read of them."""


def row(views, p99, **values):
    return {"views": views, "p50_ms": p99 / 2, "p99_ms": p99, "joules_per_tile": None, **values}


HOW = {"threads": 2, "slots": 1, "halo": 64, "gsd_m": 0.5, "soak_s": None, "scout": None}
SCOUT = {"sha256": "cc", "arch": "dlinknet34", "width": 0.25, "precision": "int8"}


def how(**values):
    return {**HOW, **values}


def result(*rows, **values):
    """A result of dlink-bench with these rows."""
    return {
        "file": {"name": "roads.onnx", "sha256": "aa"},
        "network": {"arch": "dlinknet34", "width": 1.0, "tile": 1024, "precision": "fp16"},
        "engine": "OpenVINO 2026.4.1, bf16, 2 threads",
        "tiles": "generated",
        "latency": list(rows),
        "peak_bytes": 500_000_000,
        "machine": {"cpu": "AMD EPYC", "cores": 2, "versions": {"dlink": "0.1.0"}},
        "how": HOW,
        **values,
    }


SOAK_RUN = {"views": 1, "seconds": 4.0, "last": {"p50_ms": 1, "p99_ms": 2}, "memory": None, "gpu_memory": None}
