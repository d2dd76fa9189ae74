"""Columns out of whatever table a user has at hand."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["columns"]


def columns(frame: Any, names: Sequence[str], *, text: Sequence[str]) -> list[list[Any]]:
    """Read named columns of a table as lists of equal length.

    Parameters
    ----------
    frame
        A dict of columns, a DuckDB relation, or anything DuckDB scans (pandas, polars, pyarrow).
    names
        The columns wanted, in this order.
    text
        Those of them to read as text.

    Raises
    ------
    ValueError
        For a missing column, a missing value, an empty text, or unequal lengths.
    TypeError
        For an object that is no table.
    """
    table = dict(frame) if isinstance(frame, Mapping) else _scan(frame)
    out = []
    for name in names:
        if name not in table:
            near = difflib.get_close_matches(name, map(str, table), n=1)
            hint = f"; nearest: {near[0]!r}" if near else ""
            raise ValueError(f"no column {name!r} among {', '.join(map(str, table))}{hint}. Name it by keyword")
        values = table[name]
        values = values.tolist() if isinstance(values, np.ndarray) else list(values)
        for row, value in enumerate(values):
            if value is None or value != value:
                raise ValueError(f"column {name!r} has no value in row {row}; drop or fill such rows first")
            if name in text and (not str(value).strip()):
                raise ValueError(f"column {name!r} is empty text in row {row}; drop such rows first")
        out.append([str(value) for value in values] if name in text else values)
    if len({len(column) for column in out}) > 1:
        raise ValueError(f"columns have unequal lengths: {dict(zip(names, map(len, out), strict=True))}")
    return out


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
