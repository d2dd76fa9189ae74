"""PropS: score, sentence, predicate, then pairs of a dependency label and an argument."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from relsim.phrases.verbs import BE
from relsim.readers.base import Argument, Aside, Extraction, Item, Lines, Reader, Sample, is_number

__all__ = ["READER"]

_LABEL = re.compile(r"[a-zA-Z]+(_[a-z_]+)?")
_PREPOSITION = re.compile(r"prepc?_(.+)")
_SIDE = re.compile(r"(mod|cc|conj_.*|dep|parataxis|punct|condition|outcome|source|discourse)")


def _sniff(sample: Sample) -> str | None:
    def good(line: str) -> bool:
        cells = line.split("\t")
        if not (len(cells) >= 4 and is_number(cells[0]) and len(cells[1].split()) > 2):
            return False
        return bool(_LABEL.fullmatch(cells[3])) and (len(cells) == 4 or any(" " in cell for cell in cells[4::2]))

    labelled = sample.count(lambda line: "\tsubj\t" in line or "\tdobj\t" in line)
    found = sample.mostly(good)
    return f"score, sentence, predicate, labelled arguments in {found}" if found and labelled else None


def _read(lines: Lines, path: Path) -> Iterator[Item]:
    """Items of PropS rows.

    The first ``subj`` is arg1; without one the first ``obj``, and the predicate is passive. Complements and
    prepositional arguments come before modifiers and coordinated parts; a ``prep_in`` argument puts "in" in the relation.
    Subjects coordinated with the first are not arguments of their own.
    """
    for number, line in lines:
        cells = [cell.strip() for cell in line.rstrip("\t").split("\t")]
        labels, texts = cells[3::2], cells[4::2]
        if len(cells) < 3 or not is_number(cells[0]):
            yield Aside(number, "bad", "expected score, sentence, predicate, label, argument, ...", line)
            continue
        if len(labels) != len(texts):
            yield Aside(number, "bad", "a label without its argument", line)
            continue
        pairs = list(zip(labels, texts, strict=True))
        relation = cells[2]
        first = next((i for i, (label, _) in enumerate(pairs) if label == "subj"), None)
        if first is None:
            first = next((i for i, (label, _) in enumerate(pairs) if label == "obj"), None)
            relation = relation if relation.lower() in BE else f"be {relation}"
        if first is None:
            yield Aside(number, "left", "no subject or object", line)
            continue
        head = pairs.pop(first)[1]
        pairs = [pair for pair in pairs if pair[0] != "subj"]
        pairs.sort(key=lambda pair: bool(_SIDE.fullmatch(pair[0])))
        yield Extraction(number, head, relation, [_argument(*pair) for pair in pairs if pair[1]], float(cells[0]))


def _argument(label: str, text: str) -> Argument:
    preposition = _PREPOSITION.fullmatch(label)
    if preposition:
        return Argument(text, marker=preposition[1].replace("_", " "))
    return Argument(text, kind="time" if label == "tmod" else label)


READER = Reader("score, sentence, predicate, then pairs of label and argument", _sniff, rows=_read)
