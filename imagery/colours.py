"""Finds a raster's bands of the names that a network takes: by interpretation, then by description, then in order.

What is not sure is said in a note, and what cannot be known is refused: `--bands` gives the numbers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dlink.imagery.reading import Reading
from dlink.runtime.errors import BadInput
from dlink.runtime.spec import COLOURS
from dlink.runtime.words import counted

LONGEST = 60  # characters of names in a note
ALPHA, GREY = "alpha", "gray"
# Words of a description that do not name a band: `Band 3`, `B04`, `665 nm`, `channel`.
FILLERS = re.compile(r"b?\d+[a-z]?|nm|um|band|channel|layer|wavelength|reflectance|pansharpened")
SAME = {  # other words for a band's name
    "r": "red", "g": "green", "b": "blue", "nir1": "nir", "near infrared": "nir", "near ir": "nir", "infrared": "nir",
    "grey": GREY, "panchromatic": "pan", "red edge": "rededge",
}  # fmt: skip
SENTINEL = {"b02": "blue", "b03": "green", "b04": "red", "b08": "nir"}  # written with two digits, Sentinel-2's alone


@dataclass(frozen=True)
class Bands:
    """The numbers of a raster's bands, one for each plane of the image or one for all, and how they were found."""

    numbers: tuple[int, ...]
    note: str = ""  # what was assumed; empty if the file says it


def bands_of(roles: Sequence[str], descriptions: Sequence[str | None], how: Reading) -> Bands:
    """The bands to read. `roles` are GDAL's names of the bands' interpretations. BadInput if a band is missing."""
    planes = plain_names(how.planes)
    if how.numbers:
        if len(how.numbers) not in ((1, len(COLOURS)) if planes == COLOURS else (len(planes),)):
            raise BadInput(
                f"--bands {how.bands}: {counted(len(how.numbers), 'band')}; the network takes {len(planes)}: "
                f"{', '.join(planes)}, in this order"
            )
        if missing := [n for n in how.numbers if n > len(roles)]:
            raise BadInput(f"--bands {how.bands}: there is no band {missing[0]}, there are {len(roles)}")
        return Bands(how.numbers)
    words = [plain(text or "") for text in descriptions]
    if by_role := found(planes, roles):
        return Bands(by_role, contradiction(by_role, planes, words))
    either = [role if role in planes else word for role, word in zip(roles, words, strict=True)]
    if by_name := found(planes, words) or found(planes, either):
        return Bands(by_name)
    opaque = tuple(i for i, role in enumerate(roles, 1) if role != ALPHA)
    if not any(name in planes for name in either):
        if planes == COLOURS and len(opaque) < len(COLOURS):
            one = opaque[:1] or (1,)
            return Bands(one, f"band {one[0]} of {len(opaque)} is taken as grey" if len(opaque) > 1 else "")
        if len(opaque) == len(planes) or (planes == COLOURS and len(opaque) > len(planes)):
            return Bands(opaque[: len(planes)], unnamed(opaque[: len(planes)], planes, descriptions))
    there = ", ".join(name or role for name, role in zip(either, roles, strict=True))
    lacking = next(plane for plane in planes if either.count(plane) != 1)
    many = either.count(lacking) or "none"
    raise BadInput(
        f"the network takes {', '.join(planes)}; of its {counted(len(roles), 'band')} ({there}) {many} "
        f"{'is' if many == 'none' else 'are'} {lacking}; {mend(planes, either)}"
    )


def mend(planes: Sequence[str], names: Sequence[str]) -> str:
    """What to do about a missing band: the numbers to give, with a guess for each band that has no name."""
    unnamed = [i for i, name in enumerate(names, 1) if names.count(name) > 1 or name not in planes]
    if len(names) < len(planes):
        return "give a picture that has it"
    guess = [names.index(plane) + 1 if names.count(plane) == 1 else unnamed.pop(0) for plane in planes]
    return f"--bands says which they are, such as --bands {','.join(map(str, guess))}"


def unnamed(numbers: Sequence[int], planes: Sequence[str], descriptions: Sequence[str | None]) -> str:
    known = ", ".join(text for text in descriptions if text)
    what = f"its bands' names ({known[:LONGEST]}) are none of these" if known else "its bands have no names"
    each = "are taken as" if len(numbers) > 1 else "is taken as"
    return f"{what}: {listed(numbers)} {each} {', '.join(planes)}; --bands says otherwise"


def contradiction(numbers: Sequence[int], planes: Sequence[str], words: Sequence[str]) -> str:
    """What a description says against a declared colour."""
    for number, plane in zip(numbers, planes, strict=True):
        if (word := words[number - 1]) in COLOURS and word != plane:
            return (
                f"band {number} is declared {plane} and described as {word}: taken as {plane}; --bands says otherwise"
            )
    return ""


def plain_names(planes: Sequence[str]) -> tuple[str, ...]:
    """A network's names in the form of descriptions (`NIR1` -> nir), if they stay different."""
    names = tuple(plain(name) or name for name in planes)
    return names if len(set(names)) == len(names) else tuple(planes)


def found(planes: Sequence[str], names: Sequence[str]) -> tuple[int, ...] | None:
    """The number of the one band with each name; None if one is missing or there twice."""
    if any(names.count(plane) != 1 for plane in planes):
        return None
    return tuple(names.index(plane) + 1 for plane in planes)


def plain(description: str) -> str:
    """The name in a band's description: `B04 (Red)` -> red."""
    words = [word for word in re.split(r"[^a-z0-9]+", description.lower()) if word]
    if len(words) == 1 and words[0] in SENTINEL:
        return SENTINEL[words[0]]
    name = " ".join(word for word in words if word in SAME or not FILLERS.fullmatch(word))
    return SAME.get(name, name)


def listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
