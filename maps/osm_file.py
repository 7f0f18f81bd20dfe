"""Writes roads as an `.osm` file, to review in JOSM: OpenStreetMap's XML 0.6 as JOSM keeps it.

- Coordinates are longitude and latitude with 7 decimals, as OpenStreetMap keeps them (1 cm).
- What is new has a negative id. Lines that meet have one node there. Vertices that fall on one node are one.
- A way has at most 2000 nodes, which is the API's limit. A longer line becomes several ways that share their ends.
- A way has `highway=road` (a road of unknown kind), `source`, `fixme` where a person must look, and `dlink:width`
  (metres) and `dlink:probability`. The width is a mask's, shoulders and parked cars included, and not the surveyed
  carriageway that OpenStreetMap's own key `width` means. The prefix keeps it apart, and one search in JOSM finds it.
- An existing node that a new way uses has its id, version and tags, and no `action`: it is not changed.
- An existing way that got a node has `action="modify"`, its id, version, tags, and all its nodes, which are in the
  file too.
- `upload="false"` makes JOSM ask before an upload: generated roads are for review.

Sources: https://wiki.openstreetmap.org/wiki/JOSM_file_format, https://wiki.openstreetmap.org/wiki/API_v0.6, and JOSM's
AbstractReader, which refuses an object with a positive id and no version.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.files import replacing
from dlink.runtime.versions import installed_version

MOST_NODES = 2000  # of a way: the API's limit
MOST_TEXT = 255  # characters of a tag's value: the API's limit
DECIMALS = 7

Points = NDArray[np.float64]


@dataclass(frozen=True)
class OsmNode:
    """A node; what is new has a negative id and version 0."""

    id: int
    version: int
    lon: float
    lat: float
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OsmWay:
    """A way as it is in the extract, or with nodes put in."""

    id: int
    version: int
    nodes: tuple[int, ...]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Beside:
    """What of OpenStreetMap the roads join."""

    nodes: Sequence[OsmNode] = ()  # existing ones that are referred to, and new ones in existing ways
    ways: Sequence[OsmWay] = ()  # existing ways that got nodes
    at: Mapping[int, int] = field(default_factory=dict)  # id of one of `nodes`, by the number in from_node and to_node


ALONE = Beside()


def write_osm(path: Path, lines: list[Points], fields: Mapping[str, NDArray[Any]], source: str, beside: Beside) -> None:
    """Write lines (K, 2) of longitude and latitude, whole or not at all.

    `fields` are those of Roads. A line that is shorter than OpenStreetMap's centimetre is left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    places = Places(beside)
    ways: list[tuple[list[int], dict[str, str]]] = []
    for i, line in enumerate(lines):
        ends = int(fields["from_node"][i]), int(fields["to_node"][i])
        tags = tags_of(fields, i, source)
        ways += [(nodes, tags) for nodes in pieces(places.of_line(line, ends))]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        file.write(f'<osm version="0.6" generator="dlink {installed_version("dlink")}" upload="false">\n')
        file.writelines(node_text(node) for node in [*beside.nodes, *places.made()])
        for number, (nodes, tags) in enumerate(ways, 1):
            way_text(file, f'id="{-number}"', nodes, tags)
        for way in beside.ways:
            way_text(file, f'id="{way.id}" version="{way.version}" action="modify" visible="true"', way.nodes, way.tags)
        file.write("</osm>\n")


class Places:
    """The nodes of the lines, each made once."""

    def __init__(self, beside: Beside) -> None:
        self.ends = dict(beside.at)
        self.next = min([0, *(node.id for node in beside.nodes)]) - 1
        self.known: dict[tuple[float, float], int] = {}

    def of_line(self, line: Points, ends: tuple[int, int]) -> list[int]:
        """The ids of a line's nodes, without repetition."""
        rounded = [(lon, lat) for lon, lat in np.round(line, DECIMALS).tolist()]
        ids = [
            self.ends[end] if end in self.ends else self.at(rounded[k]) for end, k in zip(ends, (0, -1), strict=True)
        ]
        inner = [self.at(place) for place in rounded[1:-1]]
        whole = [ids[0], *inner, ids[1]]
        return [a for i, a in enumerate(whole) if i == 0 or a != whole[i - 1]]

    def at(self, place: tuple[float, float]) -> int:
        if place not in self.known:
            self.known[place] = self.next
            self.next -= 1
        return self.known[place]

    def made(self) -> Iterator[OsmNode]:
        return (OsmNode(id, 0, lon, lat) for (lon, lat), id in self.known.items())


def pieces(nodes: list[int]) -> list[list[int]]:
    """A way as ways of at most MOST_NODES nodes, which share their ends; none if there is only one node."""
    step = MOST_NODES - 1
    return [nodes[start : start + MOST_NODES] for start in range(0, len(nodes) - 1, step)]


def tags_of(fields: Mapping[str, NDArray[Any]], i: int, source: str) -> dict[str, str]:
    """The tags of one line."""
    tags = {"highway": "road", "source": source, "dlink:width": f"{fields['width_m'][i]:.1f}"}
    if "probability" in fields and not np.isnan(fields["probability"][i]):
        tags["dlink:probability"] = f"{fields['probability'][i]:.2f}"
    words = [str(fields["review"][i])] if "review" in fields else []
    if "bridge" in fields and fields["bridge"][i]:
        words.append("bridges a gap of the mask")
    tags["fixme"] = "; ".join(word for word in words if word)
    return {key: text[:MOST_TEXT] for key, value in tags.items() if (text := printable(value))}


def printable(text: str) -> str:
    """What XML and UTF-8 can hold: a file's name may have other bytes."""
    return "".join(char if char.isprintable() else "?" for char in text)


def node_text(node: OsmNode) -> str:
    known = f' version="{node.version}" visible="true"' if node.id > 0 else ""
    start = f'  <node id="{node.id}"{known} lat="{node.lat:.7f}" lon="{node.lon:.7f}"'
    return f"{start}>\n{''.join(tag_texts(node.tags))}  </node>\n" if node.tags else f"{start}/>\n"


def way_text(file: TextIO, attributes: str, nodes: Iterable[int], tags: Mapping[str, str]) -> None:
    file.write(f"  <way {attributes}>\n")
    file.writelines(f'    <nd ref="{node}"/>\n' for node in nodes)
    file.writelines(tag_texts(tags))
    file.write("  </way>\n")


def tag_texts(tags: Mapping[str, str]) -> Iterator[str]:
    return (f"    <tag k={quoteattr(key)} v={quoteattr(value)}/>\n" for key, value in tags.items())
