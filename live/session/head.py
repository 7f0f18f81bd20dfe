"""session.json: what a session was computed with."""

import json
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dlink.live.engine import About
from dlink.runtime import BadModel, Spec
from dlink.runtime.files import FileMark, file_mark, replacing
from dlink.runtime.values import dataclass_of, load_json
from dlink.runtime.versions import installed_version

NAME = "session.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a session was computed with.

    Args:
        model: The model file.
        path: Where it was.
        spec: Its Spec.
        halo: Context around each core, px.
        threshold: A pixel is road where its probability is greater.
        engine: Name, version and precision of the engine.
        dlink: dlink's version.
        python: Python's version and the machine.
        source: The address of the video, without a password.
        utc: When the session began, seconds since 1970-01-01 UTC.
        monotonic: The same moment on the clock of the lines' times.
        options: Of the command, as they were written.
        ended: When it ended, UTC; None while it runs, or where it was killed.
        scout: The small network that looked first; `options` says where it was.
    """

    model: FileMark
    path: str
    spec: Spec
    halo: int
    threshold: float
    engine: str
    dlink: str
    python: str
    source: str
    utc: float
    monotonic: float
    options: dict[str, str] = field(default_factory=dict)
    ended: float | None = None
    scout: FileMark | None = None


def head_of(about: About, model: Path, source: str, options: dict[str, str]) -> Head:
    """The head of a session that begins now."""
    return Head(
        model=file_mark(model),
        path=str(model.absolute()),
        spec=about.spec,
        halo=about.halo,
        threshold=about.threshold,
        engine=about.engine,
        dlink=installed_version("dlink"),
        python=f"{platform.python_version()} on {platform.platform()}",
        source=source,
        utc=time.time(),
        monotonic=time.monotonic(),
        options=options,
        scout=file_mark(Path(options["scout"])) if "scout" in options else None,
    )


def write_head(folder: Path, head: Head) -> None:
    values = asdict(head) | {"format": FORMAT, "spec": json.loads(head.spec.to_json())}
    with replacing(folder / NAME) as part:
        part.write_text(json.dumps(values, indent=1) + "\n")


def read_head(folder: Path) -> Head:
    """The head of a folder. BadModel where it is damaged or of another version."""
    path = folder / NAME
    try:
        values = load_json(path.read_bytes())
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise TypeError(f"its format is not {FORMAT}")
        return dataclass_of(Head, values, {Spec: lambda v: Spec.of_values(v, path)})
    except (TypeError, ValueError) as e:
        raise BadModel(f"{path}: {e}; it is damaged, or of another version of dlink") from e
