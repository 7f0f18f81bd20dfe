"""The doctor's report: what this machine has, what it lacks, and which tasks it can do."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dlink.doctor.components import Component, Tries, Versions, attempt, components
from dlink.doctor.extras import EXTRAS
from dlink.doctor.machine import Machine, speed
from dlink.runtime.versions import installed_version


@dataclass(frozen=True)
class Ability:
    """A task, whether this machine can do it, and what it lacks or how fast it is."""

    name: str
    can: bool
    words: str


@dataclass(frozen=True)
class Report:
    machine: Machine
    rows: tuple[Component, ...]
    abilities: tuple[Ability, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for json.dumps: the fields of this class, by name."""
        return asdict(self)


def examine(machine: Machine, versions: Versions = installed_version, tried: Tries = attempt) -> Report:
    """A row for everything that dlink can use on this machine, and the tasks that this machine can do."""
    rows = components(machine, versions, tried)
    return Report(machine, tuple(rows), tuple(abilities({row.name: row for row in rows}, machine)))


def abilities(rows: Mapping[str, Component], machine: Machine) -> list[Ability]:
    """The tasks of the extras, and whether this machine can do them."""

    def lacks(*names: str) -> str:
        return ", ".join(f"{name} {rows[name].state}" for name in names if rows[name].state != "found")

    def ability(name: str, lacking: str, words: str = "") -> Ability:
        return Ability(name, not lacking, lacking or words)

    rtx = not lacks("TensorRT-RTX")
    compiler, other = ("TensorRT-RTX", "trt") if rtx else ("TensorRT", "rtx")
    gpu = ("GPU", "driver")
    beyond = {"build": (compiler, *(() if rtx else gpu)), "trt": ("numpy", *gpu), "rtx": ("numpy", *gpu)}
    words = {"cpu": speed(machine), "build": f"by {compiler}"}  # TensorRT-RTX builds without a GPU
    return [
        ability(extra.can, lacks(*extra.needs, *beyond.get(name, ())), words.get(name, ""))
        for name, extra in EXTRAS.items()
        if extra.can and name != other
    ]
