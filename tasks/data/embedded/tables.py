"""The fact tables: read from package data, as (subject, object) pairs by predicate."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources

__all__ = ["Pair", "facts", "read_table"]

Pair = tuple[str, str]

# Columns of the wide tables: (column, predicate, whether the row's key is the object of the fact).
_COUNTRY = (
    ("capital", "capital", True),
    ("continent", "continent", False),
    ("currency", "currency", False),
    ("official", "official", True),
    ("spoken", "other_language", True),
    ("cities", "other_city", True),
)
_PERSON = (("born", "born", False), ("died", "died", False), ("lived", "lived", False))


def read_table(name: str) -> list[dict[str, str]]:
    """Rows of an embedded table (TAB separated, first row the column names), as column -> cell.

    Raises
    ------
    ValueError
        For a row with more or fewer cells than the header.
    """
    lines = (resources.files(__package__) / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    header = lines[0].split("\t")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) != len(header):
            raise ValueError(f"{name}.tsv line {number}: {len(cells)} cells, expected {len(header)}: {line!r}")
        rows.append(dict(zip(header, cells, strict=True)))
    return rows


def _statements() -> Iterator[tuple[str, str, str]]:
    for table, key, columns in (("countries", "country", _COUNTRY), ("people", "person", _PERSON)):
        for row in read_table(table):
            for column, predicate, swap in columns:
                for value in filter(None, row[column].split(";")):
                    yield (predicate, value, row[key]) if swap else (predicate, row[key], value)
    for row in read_table("facts"):
        for value in row["objects"].split(";"):
            yield row["predicate"], row["subject"], value


@cache
def facts() -> dict[str, tuple[Pair, ...]]:
    """All facts: predicate -> pairs (subject, object), the best known first.

    Returns
    -------
    dict
        About 60 predicates with 16 to 168 pairs each; no pair repeats within a predicate.
    """
    pairs: dict[str, list[Pair]] = {}
    for predicate, subject, value in _statements():
        pairs.setdefault(predicate, []).append((subject, value))
    return {predicate: tuple(rows) for predicate, rows in pairs.items()}
