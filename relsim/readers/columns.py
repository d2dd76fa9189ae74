"""Tables of text: TAB or comma separated, with or without a header row; CoreNLP's four columns."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence

from relsim.ingest.report import IngestError
from relsim.readers.base import Layout, Options, Reader, Sample, is_integer, is_number

__all__ = ["CORENLP", "CSV", "ROLES", "TSV", "names_triple", "role"]

# Column names in the wild, lower case without spaces, dashes and underscores.
ROLES = {
    "head": "head h arg1 argument1 subject subj s arg1norm headentity",
    "relation": "relation rel r predicate pred p phrase relationphrase relnorm verb",
    "tail": "tail t arg2 argument2 object obj o arg2norm tailentity",
    "confidence": "confidence conf score probability prob c",
    "count": "count counts freq frequency n times mentions",
    "number": "weight value",
    "head_type": "headtype arg1type subjecttype",
    "tail_type": "tailtype arg2type objecttype",
}
_ROLE = {name: key for key, names in ROLES.items() for name in names.split()}
_TRIPLE = ("head", "relation", "tail")
_TSV_CELLS = "string_split(line, chr(9))"
_CSV_CELL = '( *"(?:[^"]|"")*" *|[^,"]*)'
_CSV_CELLS = (
    f"CASE WHEN regexp_full_match(',' || line, '(?:,{_CSV_CELL})+') THEN "
    f"[CASE WHEN trim(x) LIKE '\"%' THEN replace(trim(x)[2:len(trim(x)) - 1], '\"\"', '\"') ELSE x END "
    f"for x in regexp_extract_all(',' || line, ',{_CSV_CELL}', 1)] END"
)


def role(name: str) -> str | None:
    """Role of a column name, a key of ``ROLES`` ("number": confidence or count), or None for any other column."""
    return _ROLE.get("".join(ch for ch in name.strip().strip('"').lower() if ch not in " -_"))


def _cells(line: str, delimiter: str) -> list[str]:
    if delimiter == "\t":
        return line.split("\t")
    try:
        return next(csv.reader([line], skipinitialspace=True), [])
    except csv.Error:  # a cell beyond what the module reads
        return [line]


def names_triple(cells: Sequence[str]) -> bool:
    """Whether a row names a column for each part of a triple."""
    return set(_TRIPLE) <= {role(cell) for cell in cells}


def _sniff_columns(delimiter: str, share: float) -> Callable[[Sample], str | None]:
    def sniff(sample: Sample) -> str | None:
        if sample.mostly(lambda line: line.lstrip().startswith(("{", "["))):
            return None
        if delimiter == "," and sample.mostly(lambda line: "\t" in line, 0.2):
            return None
        rows = [_cells(line, delimiter) for line in sample.lines]
        width, lines = Counter(map(len, rows)).most_common(1)[0]
        headed = names_triple(rows[0])
        if lines <= share * len(rows) or (width not in (3, 4, 5) and not headed):
            return None
        mark = "TAB" if delimiter == "\t" else "comma separated"
        return f"{width} {mark} columns in {lines} of {len(rows)} sampled lines{', header row' if headed else ''}"

    return sniff


def _delimited(name: str, delimiter: str) -> Callable[[Sample, Options], Layout]:
    def layout(sample: Sample, options: Options) -> Layout:
        rows = [_cells(line, delimiter) for line in sample.lines]
        given = options.columns
        roles = [role(cell) for cell in (rows[0] if given is None else given)]
        header = names_triple(rows[0])  # no fact, whoever names the columns
        if header:
            rows = rows[1:]
        if given is None and not header:
            width = Counter(map(len, rows)).most_common(1)[0][0]
            roles = _guess([row for row in rows if len(row) == width], width)
        width = len(roles)
        place = {key: i + 1 for i, key in reversed(list(enumerate(roles))) if key is not None}
        if missing := [key for key in _TRIPLE if key not in place]:
            raise IngestError(f"columns {list(given or roles)} name no {' and no '.join(missing)} column")
        kind = next((key for key in ("confidence", "count", "number") if key in place), None)
        shown = ", ".join(key or "-" for key in roles).replace("number", "confidence or count")
        unbalanced = "WHEN f IS NULL THEN 'a quoted cell does not end on its line' " if delimiter == "," else ""
        return Layout(
            description=f"{name} ({shown}{', header' if header else ''})",
            cells=_TSV_CELLS if delimiter == "\t" else _CSV_CELLS,
            shape=f"CASE {unbalanced}WHEN len(f) <> {width} THEN printf('%d columns, expected {width}', len(f)) END",
            **{key: f"f[{place[key]}]" for key in _TRIPLE},
            weight=f"f[{place[kind]}]" if kind else None,
            weight_kind=None if kind == "number" else kind,
            **{key: f"f[{place[key]}]" for key in ("head_type", "tail_type") if key in place},
            count=f"f[{place['count']}]" if kind == "confidence" and "count" in place else None,
            header=header,
            escapes=delimiter == ",",
            level="any",
        )

    return layout


def _guess(rows: list[list[str]], width: int) -> list[str | None]:
    """Roles of 3 to 5 unnamed columns: the triple first, or after a leading confidence, sentence number or label."""

    def share(column: int, good: Callable[[str], bool]) -> bool:
        return sum(good(row[column]) for row in rows) > 0.9 * len(rows)

    triple: list[str | None] = list(_TRIPLE)
    if width == 3:
        return triple
    if width in (4, 5) and share(3, is_number):
        return [*triple, "number", None][:width]
    if width == 4 and share(0, is_number) and not share(0, is_integer):
        return ["confidence", *triple]
    if width == 5 and share(0, is_integer) and share(1, is_integer):
        return [None, None, *triple]
    if width == 5 and share(4, is_number):
        return [None, *triple, "number"] if share(0, is_integer) else [*triple, None, "number"]
    shown = " | ".join(cell[:30] for cell in rows[0][:6])
    raise IngestError(
        f"{width} columns in an order that cannot be told ({shown}); say which is which with columns, for example "
        "columns=('head', 'relation', 'tail', 'confidence', '-')"
    )


def _sniff_corenlp(sample: Sample) -> str | None:
    def good(line: str) -> bool:
        cells = line.split("\t")
        return len(cells) == 4 and is_number(cells[0]) and not is_integer(cells[0]) and not is_number(cells[3])

    found = sample.mostly(good)
    return f"4 TAB columns, the first a confidence, in {found}" if found else None


def _corenlp(sample: Sample, options: Options) -> Layout:
    options.no_columns("corenlp")
    return Layout(
        description="corenlp (confidence, subject, relation, object)",
        cells=_TSV_CELLS,
        shape="CASE WHEN len(f) <> 4 THEN printf('%d columns, expected 4', len(f)) END",
        head="f[2]",
        relation="f[3]",
        tail="f[4]",
        weight="f[1]",
        weight_kind="confidence",
    )


CORENLP = Reader("confidence, subject, relation, object: Stanford CoreNLP's default", _sniff_corenlp, layout=_corenlp)
TSV = Reader(
    "3 to 5 TAB columns, or any with a header: arg1, rel, arg2[, confidence or count][, other]; triples of a KB",
    _sniff_columns("\t", 0.5),
    layout=_delimited("tsv", "\t"),
)
CSV = Reader("the same with commas, cells quoted as needed", _sniff_columns(",", 0.8), layout=_delimited("csv", ","))
