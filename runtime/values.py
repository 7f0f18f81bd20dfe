"""Checks of values from outside: JSON as frozen dataclasses, whose fields give the types, and callers' arguments."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from dlink.runtime.errors import BadInput

T = TypeVar("T")
Readers = Mapping[type, Callable[[Any], Any]]  # functions that read some types in their own way


def load_json(text: str | bytes) -> Any:
    """Parse JSON. Anything else, NaN and infinity included, raises ValueError with a short message."""

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise ValueError(f"{number[:40]} is beyond any number")
        return value

    try:
        return json.loads(text, parse_constant=finite, parse_float=finite)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e
    except ValueError as e:
        raise ValueError(str(e)[:80]) from e


def dataclass_of(kind: type[T], values: Any, readers: Readers) -> T:
    """A dataclass from JSON values. TypeError if a value is missing, unknown or of another type."""
    if kind in readers:
        made: T = readers[kind](values)
        return made
    hints = get_type_hints(kind)
    needed = {f.name for f in fields(kind) if f.default is f.default_factory}  # type: ignore[arg-type] # both MISSING
    if not isinstance(values, dict) or values.keys() - hints.keys() or needed - values.keys():
        strange = sorted(set(values) ^ set(hints)) if isinstance(values, dict) else [repr(values)[:40]]
        raise TypeError(f"{kind.__name__} with unknown or missing parts: {', '.join(strange)[:80]}")
    return kind(**{name: value_of(hints[name], value, name, readers) for name, value in values.items()})


def value_of(hint: Any, value: Any, name: str, readers: Readers) -> Any:
    """A JSON value in the type of a field: a dataclass, an optional, a tuple, a mapping or a plain type.

    A whole number is accepted for a float; true and false are not numbers.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return None if value is None else value_of(inner[0], value, name, readers)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(value_of(inner[0], v, name, readers) for v in value)
    if origin is not None and origin is not tuple and isinstance(value, dict):
        return {k: value_of(inner[1], v, name, readers) for k, v in value.items()}
    if is_dataclass(hint) and isinstance(hint, type):
        return dataclass_of(hint, value, readers)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError(f"{name} is {str(value)[:40]!r}, expected {getattr(hint, '__name__', hint)}")
    return value


def whole(name: str, value: Any, least: int, most: int) -> int:
    """The argument as an int from `least` to `most`, NumPy's integers included; otherwise BadInput."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise BadInput(f"{name} must be a whole number from {least} to {most}, got {value!r:.40}")
    return int(value)


def real(name: str, value: Any, words: str, fits: Callable[[float], bool]) -> float:
    """The argument as a float if it `fits`; otherwise BadInput, whose message says in `words` what fits."""
    try:
        if not isinstance(value, bool | np.bool_) and isinstance(value, Real) and fits(float(value)):
            return float(value)
    except OverflowError:
        pass
    raise BadInput(f"{name} must be {words}, got {value!r:.40}")
