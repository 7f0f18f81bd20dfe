"""Finds a network's tensors in what a checkpoint file holds.

Training scripts store the weights under a key of their own choice. Wrappers (DataParallel, torch.compile, Lightning)
give all keys of the network a prefix, and save other tensors beside it. So every dictionary of the file is searched for
the keys of a network that dlink knows, with any one prefix.

If several places fit, complete networks come first. Among these the order is that of `NESTS`, and then the file's.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from dlink.nets.keys import COUNTER, keys_of, named, overlap, renamed
from dlink.nets.zoo import ARCHS
from dlink.runtime.errors import BadInput

# Keys under which training scripts store the weights, in the order in which they are preferred.
NESTS = (
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "weight", "model_dict", "generator",
)  # fmt: skip
COUNTED = ("total_ops", "total_params")  # a profiler's counters, which it leaves in every layer
PARALLEL = "module."  # DataParallel's prefix: the authors' files have it, so no note speaks of it
ALIKE = 0.4  # from this share of common keys on, a checkpoint is compared key by key
DEEPEST = 4  # dictionaries in one another
PREFIXES = 16  # the most that are tried in one dictionary
LONGEST_KEY = 80  # characters of a key in a message


@dataclass(frozen=True)
class Place:
    """A dictionary of the file whose keys, without a prefix, are those of a network."""

    keys: tuple[str, ...]  # of the dictionaries around it, the outermost first
    prefix: str  # ends in a dot, or is empty
    complete: bool  # no key of the network is missing
    tensors: dict[str, Any] = field(repr=False)  # by their keys without the prefix
    left_out: tuple[str, ...] = ()  # keys beside the network, and a profiler's counters

    @property
    def name(self) -> str:
        inner = self.prefix[:-1] if not (self.keys and self.prefix == PARALLEL) else ""
        return shown(".".join([*self.keys, *([inner] if inner else [])]))

    @property
    def rank(self) -> tuple[bool, list[int]]:
        parts = [*self.keys, *self.prefix.split(".")[:-1]]
        return not self.complete, [NESTS.index(part) if part in NESTS else len(NESTS) for part in parts]

    def answers(self, key: str) -> bool:
        return key in (shown(".".join(self.keys)), self.prefix, self.prefix[:-1], *self.keys[-1:])

    @property
    def words(self) -> str:
        """What was done to the file's content; empty if it is a plain state_dict."""
        parts = [f"read from {shown('.'.join(self.keys))}"] if self.keys else []
        if self.prefix not in ("", PARALLEL):
            parts.append(f"the prefix {shown(self.prefix)} is taken off")
        if self.left_out:
            parts.append(f"left out: {named([shown(key) for key in self.left_out])}")
        return "; ".join(parts)


def find(loaded: Any, path: Path, key: str | None) -> tuple[Place | None, tuple[str, ...]]:
    """Where the network is in a file's content, and notes for the user. None if no network fits.

    `key` names the dictionary or the prefix to take.
    """
    dictionaries = list(nested(loaded))
    places = sorted((place for keys, held in dictionaries for place in places_in(keys, held)), key=lambda p: p.rank)
    if key is None:
        return chosen(places, path) if places else (None, ())
    asked = [p for p in places if p.name == key] or [p for p in places if p.answers(key)]
    if asked:
        return asked[0], notes_of(asked[0], path)
    for keys, held in dictionaries:  # one that no network fits: the error says what it lacks
        if keys and key in (".".join(keys), keys[-1]):
            return Place(keys, "", False, held), ()
    there = [p.name for p in places if p.name] or [shown(".".join(keys)) for keys, _ in dictionaries if keys]
    has = f"there are {', '.join(there)}" if there else "its network is under no key, leave --key out"
    raise BadInput(f"{path}: --key {key}: the checkpoint has no such key; {has}")


def chosen(places: list[Place], path: Path) -> tuple[Place, tuple[str, ...]]:
    first, *others = places
    if not (others := [p for p in others if p.complete and p.name]):
        return first, notes_of(first, path)
    names = ", ".join(p.name for p in others)
    fits = f"{names} fits too" if len(others) == 1 else f"{names} fit too"
    taken = first.words or f"read from {first.name or 'the outermost dictionary'}"
    return first, (f"{path}: {taken}; {fits}: --key {others[0].name} takes it",)


def notes_of(place: Place, path: Path) -> tuple[str, ...]:
    return (f"{path}: {place.words}",) if place.words else ()


def nested(loaded: Any) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """The dictionaries of a file's content and the keys that lead to them, each once."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), loaded)]
    while waiting:
        keys, held = waiting.pop(0)
        if not isinstance(held, dict) or id(held) in seen:
            continue
        seen.add(id(held))  # a pickle's dictionary may hold itself
        yield keys, held
        if len(keys) < DEEPEST:
            waiting += [((*keys, str(key)), value) for key, value in held.items() if isinstance(value, dict)]


def places_in(keys: tuple[str, ...], held: dict[Any, Any]) -> list[Place]:
    """The networks whose keys are in a dictionary, each with its prefix."""
    tensors = [key for key, value in held.items() if isinstance(key, str) and isinstance(value, Tensor)]
    prefixes = Counter(prefix for key in tensors for prefix in prefixes_of(key))
    places = [place_of(keys, held, prefix) for prefix, _ in prefixes.most_common(PREFIXES)]
    return [place for place in places if place]


def place_of(keys: tuple[str, ...], held: dict[Any, Any], prefix: str) -> Place | None:
    """A dictionary's keys with this prefix as a place, if they are those of a network.

    Without a prefix nothing tells what is beside the network, so the dictionary must hold tensors alone.
    """
    under = {k.removeprefix(prefix): v for k, v in held.items() if isinstance(k, str) and k.startswith(prefix)}
    if not prefix and not (len(under) == len(held) and all(isinstance(v, Tensor) for v in under.values())):
        return None
    counters = [prefix + key for key in under if is_count(key)]
    under = {key: value for key, value in under.items() if not is_count(key)}
    own = renamed({key: value for key, value in under.items() if not key.endswith(COUNTER)}).keys()
    if max(overlap(keys_of(arch), own) for arch in ARCHS) < ALIKE:
        return None
    beside = [str(key) for key in held if not (isinstance(key, str) and key.startswith(prefix))]
    return Place(keys, prefix, any(keys_of(arch) <= own for arch in ARCHS), under, (*beside, *counters))


def is_count(key: str) -> bool:
    return key.rpartition(".")[2] in COUNTED


def prefixes_of(key: str) -> Iterator[str]:
    """What may stand in front of a network's key, such as `model.` in model.firstconv.weight."""
    known, longest = all_keys()
    parts = key.rsplit(".", longest)
    for at in range(len(parts)):
        if (rest := ".".join(parts[at:])) in known:
            yield key.removesuffix(rest)


@cache
def all_keys() -> tuple[frozenset[str], int]:
    """The keys of all networks, and the number of parts of the longest."""
    known = frozenset[str]().union(*map(keys_of, ARCHS))
    return known, max(key.count(".") for key in known) + 1


def shown(key: str) -> str:
    """A key for a message, on one line."""
    line = " ".join(key.split())
    return line if len(line) <= LONGEST_KEY else line[:LONGEST_KEY] + "..."
