"""Columns out of whatever table a user has at hand."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from relsim.readers.columns import role

__all__ = ["columns"]


def columns(
    frame: Any, names: Mapping[str, str | None], *, count: str | None = None
) -> tuple[list[list[str]], list[Any] | None]:
    """Read columns of a table as lists of equal length: texts by role, and the numbers of ``count`` or None without any.

    Parameters
    ----------
    frame
        A dict of columns, a DuckDB relation, pandas, polars (lazy too), pyarrow, or anything DuckDB scans.
    names
        Role (head, relation, tail) to the name of its column, or to None to find it by a usual name.
    count
        Name of the column of numbers to read too, or None to find it by a usual name.

    Raises
    ------
    ValueError
        For a missing column, a missing value, an empty text, a list or bytes that are not UTF-8, or unequal lengths.
    TypeError
        For an object that is no table.
    """
    table = _table(frame)
    chosen = [_find(table, key, name) for key, name in names.items()]
    if (found := _find(table, "count", count)) in table or count is not None:
        chosen.append(found)
    out: list[list[Any]] = []
    for name in chosen:
        if name not in table:
            near = difflib.get_close_matches(name, map(str, table), n=1)
            hint = f"; nearest: {near[0]!r}" if near else ""
            raise ValueError(f"no column {name!r} among {', '.join(map(str, table))}{hint}. Name it by keyword")
        values = table[name]
        values = values.tolist() if isinstance(values, np.ndarray) else list(values)
        text = len(out) < len(names)
        for row, value in enumerate(values):
            # NaN and the missing values of pandas: compared with itself, neither is plainly true.
            if value is None or ((same := value == value) is not True and not _true(same)):
                raise ValueError(f"column {name!r} has no value in row {row}; drop or fill such rows first")
            if text and not str(value).strip():
                raise ValueError(f"column {name!r} is empty text in row {row}; drop such rows first")
        out.append([_text(value, name, row) for row, value in enumerate(values)] if text else values)
    if len({len(column) for column in out}) > 1:
        raise ValueError(f"columns have unequal lengths: {dict(zip(chosen, map(len, out), strict=True))}")
    return out[: len(names)], out[-1] if len(out) > len(names) else None


def _text(value: Any, name: str, row: int) -> str:
    """Text of a value; bytes are UTF-8."""
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"column {name!r} holds bytes that are not UTF-8 in row {row}; decode them first"
            ) from None
    if isinstance(value, list | tuple | set | Mapping | np.ndarray):
        raise ValueError(f"column {name!r} holds a {type(value).__name__} in row {row}, expected one text a row")
    return str(value)


def _true(value: Any) -> bool:
    try:
        return bool(value)
    except (TypeError, ValueError):
        return False


def _find(table: Mapping[str, Any], key: str, name: str | None) -> str:
    """Name of the column for a role: as given, or the role itself, or the first of its usual names."""
    if name is not None or key in table:
        return name or key
    return next((str(column) for column in table if role(str(column)) == key), key)


def _table(frame: Any) -> Mapping[str, Any]:
    if isinstance(frame, Mapping):
        return frame
    if hasattr(frame, "collect_schema") and hasattr(frame, "collect"):
        frame = frame.collect()
    names = getattr(frame, "column_names", None) or getattr(frame, "columns", None)
    if names is not None and hasattr(frame, "__getitem__"):
        columns = {str(name): frame[name] for name in names}
        for method in ("to_pylist", "to_list", "tolist"):
            if all(hasattr(column, method) for column in columns.values()):
                return {name: getattr(column, method)() for name, column in columns.items()}
    return _scan(frame)


def _scan(frame: Any) -> dict[str, Any]:
    import duckdb

    if isinstance(frame, duckdb.DuckDBPyRelation):
        relation = frame
    else:
        connection = duckdb.connect()
        try:
            connection.register("frame", frame)
        except duckdb.Error as error:
            raise TypeError(
                f"cannot read a {type(frame).__name__} as a table; expected pandas, polars, pyarrow, "
                "a DuckDB relation or a dict of columns"
            ) from error
        relation = connection.table("frame")
    return dict(relation.fetchnumpy())
