"""Options of methods in the types that their fields say, whoever gives them: Python, files or the command line."""

from __future__ import annotations

from dataclasses import fields
from inspect import get_annotations
from math import isfinite
from numbers import Integral, Real
from typing import Any

from .errors import DeltaError

__all__ = ["coerce", "coerced"]


def coerce(method: Any) -> None:
    """Bring the options of a method, a frozen dataclass, to the types of its fields, in place.

    Raises
    ------
    DeltaError : a value of another type, a number that is not finite, or a deviation below 0.
    """
    for f in fields(method):
        given = getattr(method, f.name)
        value = coerced(type(method), f.name, given)
        if value is not given:
            object.__setattr__(method, f.name, value)


def coerced(cls: type, option: str, value: Any) -> Any:
    """A value in the type of a method's option: a list as a tuple, one name for several, a whole number for a real one.

    Raises
    ------
    DeltaError : as :func:`coerce`.
    """
    owner = next(c for c in cls.__mro__ if option in get_annotations(c))
    kinds = str(get_annotations(owner)[option])
    if value is None and "None" in kinds:
        return None
    if "tuple[" in kinds:
        several = value if isinstance(value, tuple) else tuple(value) if isinstance(value, list) else (value,)
        inner = int if "int" in kinds else str
        fits = all(type(item) is inner for item in several)
        value, expected = several, "names" if inner is str else "whole numbers"
    elif "float" in kinds:
        fits = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
        expected = "a finite number"
        if fits and "std" in option and value < 0:
            fits, expected = False, "a number >= 0"
        value = float(value) if fits and type(value) is not float else value
    elif "int" in kinds:
        fits, expected = isinstance(value, Integral) and not isinstance(value, bool), "a whole number"
        value = int(value) if fits and type(value) is not int else value
    elif "bool" in kinds:
        fits, expected = type(value) is bool, "true or false"
    elif "str" in kinds:
        fits, expected = isinstance(value, str), "a word"
    else:
        return value
    if not fits:
        raise DeltaError(f"{cls.__name__} takes {expected} as {option}, got {value!r}")
    return value
