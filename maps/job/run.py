"""Makes a map: plans it, does its blocks by an engine, and finishes it. Run again, it goes on where it ended."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlink.imagery.notes import say
from dlink.maps.job.addresses import remote_path
from dlink.maps.job.area import area_mark
from dlink.maps.job.engines import EngineOptions, engine_of
from dlink.maps.job.finish import ResultOptions, Results, check_results, keep_results, last_results, write_results
from dlink.maps.job.folder import BLOCKS, Progress, done_blocks, is_locked, locked
from dlink.maps.job.mosaic_file import check_blocks, write_vrt
from dlink.maps.job.needs import check_disk, in_short
from dlink.maps.job.plan import FILE, MapOptions, Plan
from dlink.maps.job.planning import planned
from dlink.maps.job.renewing import KEEP, REDO, renewed
from dlink.maps.job.sources import found_sources, in_words
from dlink.maps.job.store import Store
from dlink.maps.job.tasks import Done, Job, Task, lines_task, roads_task
from dlink.runtime import open_model
from dlink.runtime.errors import BadInput, CheckFailed
from dlink.runtime.files import file_mark, refuse_checkpoint
from dlink.runtime.onnx_bytes import read_onnx
from dlink.runtime.progress import Tick, ignore
from dlink.runtime.spec import Spec
from dlink.runtime.words import counted

SHOWN = 3  # errors in a message
OF_A_WORKER = 1 << 30  # bytes; a full-size D-LinkNet34 in FP32 takes 0.7 GB for tiles of 1024 px
ON_GPU = ".plan"

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a map is made, and how much of it by this run.

    Raises:
        BadInput: A part is none, such as 5/4, or `replaced` is no known word.
    """

    folder: Path
    part: str | None = None  # such as 3/16: this run does the third of 16 parts of the blocks, and no results
    replaced: str | None = None  # what becomes of blocks that are done of rasters replaced since: redo, keep

    def __post_init__(self) -> None:
        _ = self.share
        if self.replaced not in (None, REDO, KEEP):
            raise BadInput(f"--replaced {self.replaced}: expected {REDO} or {KEEP}")
        if remote_path(str(self.folder).replace(":/", "://", 1)) or remote_path(str(self.folder)):
            raise BadInput(f"{self.folder}: a map's folder is on a disk; its blocks may lie elsewhere: --blocks")

    @property
    def share(self) -> tuple[int, int] | None:
        """Which part of how many, counted from 0."""
        if self.part is None:
            return None
        one, slash, all = self.part.partition("/")
        if not (slash and one.isdecimal() and all.isdecimal() and 1 <= int(one) <= int(all)):
            raise BadInput(f"--part {self.part[:20]}: expected such as 3/16, the third of 16 parts")
        return int(one) - 1, int(all)


def make_map(
    model: Path | None,
    names: Sequence[str],
    where: Where,
    how: MapOptions | None = None,
    engine: EngineOptions | None = None,
    results: ResultOptions | None = None,
    tick: Tick = ignore,
    tell: Tell = ignore,
) -> Results | None:
    """Make a map, or go on with it.

    Args:
        model: The model's file; None: the plan's.
        names: The rasters, the first on top; see `found_sources`. Empty: the plan's.
        where: The map's folder.
        how: What the pixels depend on. It must be as before where a plan is there. None: the plan's, or the defaults.
        engine: Who does the work.
        results: What is made of the blocks. None: as in the last run.
        tick: Called with (blocks done, all blocks, words).
        tell: Called with lines about the map: its size, what it needs.

    Returns:
        What was made; None for a part.

    Raises:
        BadInput: Rasters, options or blocks do not fit.
        CheckFailed: Some blocks failed; the others are done.
        OSError: A file cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from dlink.maps.job.run import Where, make_map
        >>> made = make_map(Path("roads.onnx"), ["scene.tif"], Where(folder=Path("map")))
        >>> made.summary.lines, sorted(path.name for path in made.files)
        (1, ['item.json', 'report.html', 'roads.gpkg', 'roads.tif'])
    """
    engine = engine or EngineOptions()
    with locked(where.folder, shared=where.share is not None) as alone:
        plan = plan_of(model, names, where, how, tick)
        store = store_of(where.folder, plan)
        if not store.remote:
            store.folder.mkdir(parents=True, exist_ok=True)
        if alone:
            store.remove_unfinished()
            remove_unfinished(where.folder, plan)
        job = Job(str(where.folder.absolute()), store.place, plan.mark, threads_of(engine, plan), plan.state)
        roads, lines = done_blocks(plan, store)
        results = results or last_results(where.folder)
        check_results(plan, results)
        keep_results(where.folder, results)
        tell(in_short(plan, roads, store))
        check_disk(plan, store, len(plan.blocks) - len(roads))
        wanted = [block for block in plan.blocks if block not in roads]
        if share := where.share:
            wanted = [block for i, block in enumerate(plan.blocks) if i % share[1] == share[0] and block not in roads]
        if wanted and lines:  # blocks were removed: lines beside them would not fit
            store.remove_lines()
            lines = set()
        do(roads_task, job, wanted, engine, tick, "blocks")
        if share:
            return None
        check_blocks(plan, store)
        write_vrt(where.folder / f"{plan.result}.vrt", plan, store)
        wanted = [block for block in plan.blocks if plan.lined and block not in lines]
        do(lines_task, job, wanted, engine, tick, "blocks of lines")
        store.remove_unfinished()  # of workers that were killed
        return write_results(where.folder, plan, store, results, tick)


def plan_of(model: Path | None, names: Sequence[str], where: Where, how: MapOptions | None, tick: Tick) -> Plan:
    """The plan that is there, if it is what is asked for; otherwise a new one."""
    folder = where.folder
    if not (folder / FILE).exists():
        if model is None or not names:
            raise BadInput(f"{folder}: no map is planned there; give a model and rasters")
        found = found_sources(names, folder, (how or MapOptions()).asset)
        plan = planned(model, spec_of(model), found, (how or MapOptions()).settled(), tick)
        plan.write(folder)
        return plan
    plan = Plan.read(folder)
    other = f"{folder}: is another map"
    if model is not None:
        if file_mark(model).sha256 != plan.model.sha256:
            raise BadInput(f"{other}, of the model {plan.model.name} ({plan.model_path}); choose another folder")
        if plan.model_path != str(model.absolute()):
            plan = replace(plan, model_path=str(model.absolute()))
            plan.write(folder)
    if how is not None and (options := how.differing(plan.asked)):
        raise BadInput(f"{other}, with another {', '.join(options)}; choose another folder")
    if how is not None and how.scout and plan.scout and file_mark(Path(how.scout)).sha256 != plan.scout.sha256:
        raise BadInput(f"{other}, with another scout than {how.scout} is now; choose another folder")
    check_area(plan, how, other)
    if names:
        check_names(found_sources(names, folder, plan.asked.asset), plan, other)
    store = store_of(folder, plan)
    new = renewed(plan, done_blocks(plan, store)[0], where.replaced, tick)
    store.remove_roads(plan.name(block) for block in new.again)  # first: else old blocks would pass for new ones
    if new.plan != plan:
        new.plan.write(folder)
    return new.plan


def store_of(folder: Path, plan: Plan) -> Store:
    blocks = plan.asked.blocks
    return Store((blocks and remote_path(blocks)) or blocks or str(folder.absolute() / BLOCKS), plan.mark)


def spec_of(model: Path) -> Spec:
    """A model's Spec. An ONNX file is read without its engine, which would keep memory while the map is made."""
    refuse_checkpoint(model)
    if model.suffix == ".onnx":
        return read_onnx(model).spec
    with open_model(model) as open:
        return open.spec


def check_area(plan: Plan, how: MapOptions | None, other: str) -> None:
    """Raise BadInput if the asked-for area is not the plan's, by the polygons of its file.

    Where the run asks for none, that the file has changed is said: the plan's own polygons go on.
    """
    file = Path((how or plan.asked).aoi or "")
    if not plan.area_mark or (how is None and not file.exists()):
        return
    if area_mark(file) == plan.area_mark:
        return
    if how is not None:
        raise BadInput(f"{other}, of other polygons than {file} has now; choose another folder, or bring those back")
    say(file, "has other polygons than the map was planned with, which stay; a new folder makes a map of the new ones")


def check_names(names: Sequence[str], plan: Plan, other: str) -> None:
    """Raise BadInput unless these are the rasters of a plan."""
    before = [source.name for source in plan.sources] + [each.name for each in plan.left_out]
    if new := [name for name in names if name not in set(before)]:
        raise BadInput(f"{other}, without {in_words(new)}; choose another folder")
    if gone := [name for name in before if name not in set(names)]:
        raise BadInput(f"{other}, also of {in_words(gone)}; choose another folder")
    order = [name for name in names if name in {source.name for source in plan.sources}]
    if order != [source.name for source in plan.sources]:
        raise BadInput(f"{other}, with its rasters in another order; choose another folder")


def do(task: Task, job: Job, blocks: Sequence[int], engine: EngineOptions, tick: Tick, words: str) -> None:
    """Do a task for blocks.

    Raises:
        CheckFailed: Some blocks failed.
    """
    if not blocks:
        return
    failed: list[Done] = []
    tick(0, len(blocks), words)
    with engine_of(engine, workers_of(engine, job)) as run:
        for i, done in enumerate(run(task, job, blocks), 1):
            for path, said, detail in done.notes:
                say(Path(path), said, detail)
            if done.error:
                failed.append(done)
            if done.ends:
                break
            tick(i, len(blocks), words)
    if failed:
        shown = "; ".join(dict.fromkeys(done.error for done in failed[:SHOWN]))
        what = f"{len(failed)} of {counted(len(blocks), 'block')} failed" if len(failed) > 1 else "a block failed"
        raise CheckFailed(f"{what}: {shown}; what is done stays: run this again to go on")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_of(engine: EngineOptions, job: Job) -> int:
    """Processes: as many as cores, one thread each, which is faster than one process of all threads; one on a GPU.

    Fewer where memory is short.
    """
    if engine.workers:
        return engine.workers
    most = max(1, cores() // job.threads)
    free = free_memory()
    return most if free is None else max(1, min(most, free // OF_A_WORKER))


def free_memory() -> int | None:
    """Bytes that Linux would give to programs (MemAvailable); None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def threads_of(engine: EngineOptions, plan: Plan) -> int:
    if engine.threads:
        return engine.threads
    if Path(plan.model_path).suffix == ON_GPU:
        return cores()
    return max(1, cores() // engine.workers) if engine.workers else 1


def remove_unfinished(folder: Path, plan: Plan) -> None:
    """Remove what a killed run has left of results."""
    for path in folder.glob(".*"):
        if path.name.startswith((f".{plan.result}.", ".plan.", ".report.", ".item.")):
            path.unlink(missing_ok=True)


def progress_of(where: Where) -> Progress:
    """How far a map is, from any process and machine."""
    plan = Plan.read(where.folder)
    store = store_of(where.folder, plan)
    roads, lines = done_blocks(plan, store)
    return Progress(
        all=len(plan.blocks),
        roads=len(roads),
        lines=len(lines) if plan.lined else None,
        finished=(where.folder / "report.json").exists() and len(lines if plan.lined else roads) == len(plan.blocks),
        running=is_locked(where.folder),
        unseen=store.place if plan.blocks and not roads and (where.folder / "report.json").exists() else "",
        rate=store.rate(),
    )
