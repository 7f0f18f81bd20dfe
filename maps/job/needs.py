"""How large a map is, and what it needs of a disk."""

import shutil

from dlink.maps.job.plan import Plan
from dlink.maps.job.store import Store
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

PIXEL = 2 + 1 / 8 + 4 / 3  # bytes of disk at most: two bands and the mask of a block, and the mosaic with overviews
PACKED = 0.1  # of that, as masks are mostly compressed
LONGEST = 40  # characters of a system that is named


def in_short(plan: Plan, done: set[int], store: Store) -> str:
    """The size of a map and what it needs, in a line."""
    grid, metres = plan.grid, min(plan.grid.metres)
    system = grid.system.to_string()
    system = system if len(system) < LONGEST else "its own system"
    need = pixels(plan, len(plan.blocks) - len(done)) * PIXEL
    rest = f", {len(done)} of them done" if done else ""
    disk = f"; at most {size(need)} in {store.place}, mostly a tenth of that" if need else ""
    return (
        f"{grid.columns:,} x {grid.rows:,} px of {metres:.3g} m in {system}, {counted(len(plan.sources), 'raster')}, "
        f"{counted(len(plan.blocks), 'block')}{rest}{disk}"
    )


def pixels(plan: Plan, blocks: int) -> float:
    """Pixels of so many blocks, at most."""
    return blocks * float(plan.side * (plan.of_model.tile - 2 * plan.halo) + 2 * plan.halo) ** 2


def size(bytes: float) -> str:
    """Such as 3.4 GB, 120 MB, 3.4 MB or 12 kB."""
    if bytes >= 1e9:
        return f"{bytes / 1e9:.1f} GB"
    if bytes < 1e6:
        return f"{bytes / 1e3:.0f} kB"
    return f"{bytes / 1e6:.0f} MB" if bytes >= 1e7 else f"{bytes / 1e6:.1f} MB"


def check_disk(plan: Plan, store: Store, blocks: int) -> None:
    """Raise BadInput if the disk is too small even for blocks as small as they mostly are."""
    if store.remote:
        return
    need, free = pixels(plan, blocks) * PIXEL * PACKED, shutil.disk_usage(store.folder).free
    if free < need:
        lack = f"{size(need - free)} more than the {size(free)} that are free"
        raise BadInput(f"{store.folder}: needs {size(need)} or more, {lack}; make room")
