"""ReVerb: 18 TAB columns; and the same as Stanford CoreNLP writes it."""

from __future__ import annotations

from relsim.readers.base import Layout, Options, Reader, Sample, is_number

__all__ = ["READER"]

_NEGATION = r"(^|\s)(not|never|n''t|cannot)(\s|$)|n''t(\s|$)"


def _sniff(sample: Sample) -> str | None:
    def good(line: str) -> bool:
        cells = line.split("\t")
        return len(cells) == 18 and is_number(cells[11])

    found = sample.mostly(good)
    return f"18 TAB columns, the 12th a number, in {found}" if found else None


def _layout(sample: Sample, options: Options) -> Layout:
    """Columns 3 to 5 as written; 16 to 18 on request.

    ReVerb's own normalised columns drop negation and the passive ("was not awarded" becomes "award") and write every
    number as #. The first of these is put back; the others cannot be, so they are not the default.
    """
    options.no_columns("reverb")
    own = options.normalise == "extractor"
    first = 16 if own else 3
    relation = f"f[{first + 1}]"
    if own:
        relation = (
            f"CASE WHEN regexp_matches(lower(f[4]), '{_NEGATION}') AND NOT regexp_matches({relation}, '{_NEGATION}') "
            f"THEN 'not ' || {relation} ELSE {relation} END"
        )
    return Layout(
        description=f"reverb (columns {first} to {first + 2}, confidence in column 12)",
        cells="string_split(line, chr(9))",
        shape="CASE WHEN len(f) <> 18 THEN printf('%d columns, expected 18', len(f)) END",
        head=f"f[{first}]",
        relation=relation,
        tail=f"f[{first + 2}]",
        weight="f[12]",
        weight_kind="confidence",
        level="names" if own else "text",
    )


READER = Reader("18 TAB columns as ReVerb writes them", _sniff, layout=_layout)
