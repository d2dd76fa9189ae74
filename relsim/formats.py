"""Open-IE file formats: how each is recognised, and the SQL that takes a line apart."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relsim.ingest import IngestError

__all__ = ["READERS", "ROLES", "Layout", "Reader", "role"]

# Column names in the wild, lower case without spaces, dashes and underscores.
ROLES = {
    "head": "head h arg1 argument1 subject subj s arg1norm headentity",
    "relation": "relation rel r predicate pred p phrase relationphrase relnorm verb",
    "tail": "tail t arg2 argument2 object obj o arg2norm tailentity",
    "confidence": "confidence conf score probability prob c",
    "count": "count counts freq frequency n times mentions",
    "number": "weight value",
}
_ROLE = {name: key for key, names in ROLES.items() for name in names.split()}


def role(name: str) -> str | None:
    """Role of a column name, a key of ``ROLES`` ("number": confidence or count), or None for any other column."""
    return _ROLE.get("".join(ch for ch in name.strip().strip('"').lower() if ch not in " -_"))


@dataclass(frozen=True)
class Layout:
    """How to take a line apart, as DuckDB expressions over ``line`` (text) and ``f`` (its cells, or NULL).

    ``shape`` gives the reason a line is bad, or NULL. ``weight_kind`` is "confidence", "count", or None to decide from
    all values: integers of which one is above 1 are counts, anything else is a confidence. ``escapes`` says that a cell
    may hold characters that do not stand in the line itself, or a TAB.
    """

    description: str
    cells: str
    shape: str
    head: str
    relation: str
    tail: str
    weight: str | None = None
    weight_kind: str | None = None
    header: bool = False
    escapes: bool = False


@dataclass(frozen=True)
class Reader:
    """One format: ``sniff`` says whether sample lines look like it, ``layout`` how to read them."""

    description: str
    sniff: Callable[[Sequence[str]], bool]
    layout: Callable[[Sequence[str], bool, Sequence[str] | None], Layout]


_TSV_CELLS = "string_split(line, chr(9))"
_CSV_CELL = '("(?:[^"]|"")*"|[^,"]*)'
_CSV_CELLS = (
    f"CASE WHEN regexp_full_match(',' || line, '(?:,{_CSV_CELL})+') THEN "
    f"[CASE WHEN x LIKE '\"%' THEN replace(x[2:len(x) - 1], '\"\"', '\"') ELSE x END "
    f"for x in regexp_extract_all(',' || line, ',{_CSV_CELL}', 1)] END"
)


def _cells(line: str, delimiter: str) -> list[str]:
    if delimiter == "\t":
        return line.split("\t")
    return next(csv.reader([line]), [])


def _share(sample: Sequence[str], good: Callable[[str], bool]) -> float:
    return sum(map(good, sample)) / max(len(sample), 1)


def _number(text: str) -> bool:
    try:
        return float(text) - float(text) == 0
    except ValueError:
        return False


def _integer(text: str) -> bool:
    return text.strip().isascii() and text.strip().isdigit()


def _sniff_reverb(sample: Sequence[str]) -> bool:
    rows = [line.split("\t") for line in sample]
    return sum(len(row) == 18 and _number(row[11]) for row in rows) > 0.5 * len(rows)


def _sniff_cesi(sample: Sequence[str]) -> bool:
    def good(line: str) -> bool:
        try:
            value = json.loads(line)
        except ValueError:
            return False
        return isinstance(value, dict) and "triple" in value

    return _share(sample, good) > 0.5


def _sniff_columns(delimiter: str, share: float) -> Callable[[Sequence[str]], bool]:
    def sniff(sample: Sequence[str]) -> bool:
        if _share(sample, lambda line: line.lstrip().startswith(("{", "["))) > 0.5:
            return False
        if delimiter == "," and _share(sample, lambda line: "\t" in line) > 0.2:
            return False
        width, lines = Counter(len(_cells(line, delimiter)) for line in sample).most_common(1)[0]
        return width in (3, 4, 5) and lines > share * len(sample)

    return sniff


def _reverb(sample: Sequence[str], normalise: bool, columns: Sequence[str] | None) -> Layout:
    if columns is not None:
        raise IngestError("columns= applies to tsv and csv; the 18 columns of reverb are fixed")
    first = 16 if normalise else 3
    return Layout(
        description=f"reverb (columns {first} to {first + 2}, confidence in column 12)",
        cells=_TSV_CELLS,
        shape="CASE WHEN len(f) <> 18 THEN printf('%d columns, expected 18', len(f)) END",
        head=f"f[{first}]",
        relation=f"f[{first + 1}]",
        tail=f"f[{first + 2}]",
        weight="f[12]",
        weight_kind="confidence",
    )


def _cesi(sample: Sequence[str], normalise: bool, columns: Sequence[str] | None) -> Layout:
    if columns is not None:
        raise IngestError("columns= applies to tsv and csv; cesi lines name their fields")
    keys = "'$.triple_norm[0]', '$.triple_norm[1]', '$.triple_norm[2]'" if normalise else ""
    raw = "'$.triple[0]', '$.triple[1]', '$.triple[2]'"
    paths = f"[{keys}, {raw}]" if normalise else f"[{raw}, {raw}]"
    return Layout(
        description=f"cesi JSON lines ({'triple_norm, where absent triple' if normalise else 'triple'})",
        cells=f"CASE WHEN json_valid(line) THEN json_extract_string(line, {paths}) END",
        shape="CASE WHEN f IS NULL THEN 'not valid JSON' WHEN coalesce(f[1], f[4]) IS NULL OR coalesce(f[2], f[5]) "
        "IS NULL OR coalesce(f[3], f[6]) IS NULL THEN 'no triple of three texts' END",
        head="coalesce(f[1], f[4])",
        relation="coalesce(f[2], f[5])",
        tail="coalesce(f[3], f[6])",
        escapes=True,
    )


def _delimited(name: str, delimiter: str) -> Callable[[Sequence[str], bool, Sequence[str] | None], Layout]:
    def layout(sample: Sequence[str], normalise: bool, columns: Sequence[str] | None) -> Layout:
        rows = [_cells(line, delimiter) for line in sample]
        header = {"head", "relation", "tail"} <= {role(cell) for cell in rows[0]}
        if columns is None and header:
            columns = rows[0]
        if columns is None:
            width = Counter(map(len, rows)).most_common(1)[0][0]
            roles = _guess([row for row in rows if len(row) == width], width)
        else:
            width, roles = len(columns), [role(column) for column in columns]
        place = {key: i + 1 for i, key in reversed(list(enumerate(roles))) if key is not None}
        if missing := [key for key in ("head", "relation", "tail") if key not in place]:
            raise IngestError(f"columns {list(columns or roles)} name no {' and no '.join(missing)} column")
        kind = next((key for key in ("confidence", "count", "number") if key in place), None)
        shown = ", ".join(key or "-" for key in roles)
        unbalanced = "WHEN f IS NULL THEN 'a quoted cell does not end on its line' " if delimiter == "," else ""
        return Layout(
            description=f"{name} ({shown.replace('number', 'confidence or count')}{', header' if header else ''})",
            cells=_TSV_CELLS if delimiter == "\t" else _CSV_CELLS,
            shape=f"CASE {unbalanced}WHEN len(f) <> {width} THEN printf('%d columns, expected {width}', len(f)) END",
            head=f"f[{place['head']}]",
            relation=f"f[{place['relation']}]",
            tail=f"f[{place['tail']}]",
            weight=f"f[{place[kind]}]" if kind else None,
            weight_kind=None if kind == "number" else kind,
            header=header,
            escapes=delimiter == ",",
        )

    return layout


def _guess(rows: list[list[str]], width: int) -> list[str | None]:
    """Roles of 3 to 5 unnamed columns: the triple first, or after a leading confidence or sentence number."""

    def share(column: int, good: Callable[[str], bool]) -> bool:
        return sum(good(row[column]) for row in rows) > 0.9 * len(rows)

    triple: list[str | None] = ["head", "relation", "tail"]
    if width == 3:
        return triple
    if width in (4, 5) and share(3, _number):
        return [*triple, "number", None][:width]
    if width == 4 and share(0, _number) and not share(0, _integer):
        return ["confidence", *triple]
    if width == 5 and share(4, _number):
        return [None, *triple, "number"] if share(0, _integer) else [*triple, None, "number"]
    shown = " | ".join(cell[:30] for cell in rows[0][:6])
    raise IngestError(
        f"{width} columns in an order that cannot be told ({shown}); say which is which with columns, for example "
        "columns=('head', 'relation', 'tail', 'confidence', '-')"
    )


READERS: dict[str, Reader] = {
    "reverb": Reader("18 TAB columns as ReVerb writes them", _sniff_reverb, _reverb),
    "tsv": Reader(
        "3 to 5 TAB columns: arg1, rel, arg2[, confidence or count][, other]; also head, relation, tail of a KB",
        _sniff_columns("\t", 0.5),
        _delimited("tsv", "\t"),
    ),
    "csv": Reader("the same with commas, cells quoted as needed", _sniff_columns(",", 0.8), _delimited("csv", ",")),
    "cesi": Reader("JSON lines with triple and triple_norm", _sniff_cesi, _cesi),
}
