"""Every file format that ``read_openie`` knows, and how one is recognised."""

from __future__ import annotations

import difflib
from collections import Counter

from relsim.ingest.report import IngestError, Unrecognised
from relsim.readers import clausie, ntriples, opiec, parquet, props, reverb
from relsim.readers.base import Reader, Sample
from relsim.readers.brackets import OLLIE, OPENIE6
from relsim.readers.columns import CORENLP, CSV, TSV, names_triple
from relsim.readers.gold import CARB, OIE2016, TABBED
from relsim.readers.ids import CUVA, OPENKE
from relsim.readers.json import CESI, COMBO
from relsim.readers.jsontriples import READER as JSON
from relsim.readers.openie5 import OPENIE4, OPENIE5

__all__ = ["READERS", "check_format", "detect"]

READERS: dict[str, Reader] = {
    "reverb": reverb.READER,
    "ollie": OLLIE,
    "openie4": OPENIE4,
    "openie5": OPENIE5,
    "openie6": OPENIE6,
    "corenlp": CORENLP,
    "clausie": clausie.READER,
    "props": props.READER,
    "opiec": opiec.READER,
    "cesi": CESI,
    "combo": COMBO,
    "json": JSON,
    "cuva": CUVA,
    "carb": CARB,
    "oie2016": OIE2016,
    "tabbed": TABBED,
    "openke": OPENKE,
    "ntriples": ntriples.READER,
    "parquet": parquet.READER,
    "tsv": TSV,
    "csv": CSV,
}
# Any table fits these; they are asked when nothing else fits.
_GENERAL = ("tsv", "csv")


def check_format(format: str) -> None:
    """Refuse a format that is neither "auto" nor a key of ``READERS``, with the nearest one."""
    if format != "auto" and format not in READERS:
        near = difflib.get_close_matches(format, READERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown format {format!r}, expected auto, {', '.join(READERS)}{hint}")


def detect(sample: Sample) -> tuple[str, str]:
    """Name of the one format that the beginning of a file fits, and why.

    Raises
    ------
    Unrecognised
        If none fits.
    IngestError
        If several do.
    """
    headed = bool(sample.lines) and any(names_triple(sample.lines[0].split(mark)) for mark in "\t,")
    special = {} if headed else {name: reader for name, reader in READERS.items() if name not in _GENERAL}
    fits = {name: why for name, reader in special.items() if (why := reader.sniff(sample))}
    fits = fits or {name: why for name in _GENERAL if (why := READERS[name].sniff(sample))}
    if len(fits) == 1:
        return next(iter(fits.items()))
    what = " and ".join(fits) if fits else "no known format"
    first = sample.lines[0]
    size = len(sample.lines)
    tabs = Counter(line.count("\t") + 1 for line in sample.lines).most_common(1)[0]
    commas = Counter(line.count(",") + 1 for line in sample.lines).most_common(1)[0]
    seen = f"{tabs[1]} of {size} lines have {tabs[0]} TAB columns, {commas[1]} have {commas[0]} by comma"
    if first.lstrip().startswith("["):
        seen = "it begins with '[': a JSON list whose first element is no triple and has no fields of ComBO"
    error = IngestError if fits else Unrecognised
    raise error(
        f"{sample.path}: looks like {what}: {seen}; first line {first[:80]!r}. "
        f"Choose with --format {'|'.join(READERS)} (format=), and --columns (columns=) for other tsv or csv orders"
    )
