"""What becomes of an extraction with more than two arguments, or fewer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from relsim.phrases.text import negated
from relsim.phrases.verbs import PREPOSITIONS
from relsim.readers.base import Argument, Aside, Item

__all__ = ["POLICIES", "Row", "expand"]

POLICIES = {
    "first": "the first two arguments; further ones are dropped and counted",
    "each": "one fact for every further argument, its preposition (or @kind) moved into the relation",
    "binary": "extractions with more than two arguments are left out",
}


class Row(NamedTuple):
    """One row on its way to the facts; ``kind`` and ``reason`` say why it is none, ``more`` that its line is counted."""

    number: int
    kind: str | None
    reason: str | None
    line: str | None
    head: str | None
    relation: str | None
    tail: str | None
    w: float
    n: float
    head_type: str | None
    tail_type: str | None
    more: bool
    dropped: int


def expand(item: Item, policy: str) -> Iterator[Row]:
    """Rows of an item under a policy of ``POLICIES``; negative extractions get "not" before the relation."""
    if isinstance(item, Aside):
        yield _aside(item.line, item.kind, item.reason, item.text)
    elif not item.tails:
        yield _aside(item.line, "left", "no second argument")
    elif policy == "binary" and len(item.tails) > 1:
        yield _aside(item.line, "left", "more than two arguments")
    else:
        tails = item.tails if policy == "each" else item.tails[:1]
        for place, tail in enumerate(tails):
            relation, text = _tie(item.relation, tail, place, move=policy == "each")
            if item.negative and not negated(relation):
                relation = f"not {relation}"
            yield Row(
                item.line,
                None,
                None,
                None,
                _clean(item.head),
                _clean(relation),
                _clean(text),
                1.0 if item.confidence is None else item.confidence,
                item.weight,
                item.head_type,
                item.tail_type if place == 0 else None,
                place > 0,
                len(item.tails) - len(tails) if place == 0 else 0,
            )


def _tie(relation: str, tail: Argument, place: int, *, move: bool) -> tuple[str, str]:
    """Relation and argument, with the word between them on the side of the relation if it is to move there."""
    if tail.marker:
        return f"{relation} {tail.marker}", tail.text
    if move:
        first, _, rest = tail.text.strip().partition(" ")
        if rest and first.lower() in PREPOSITIONS:
            return f"{relation} {first.lower()}", rest
        if place > 0:
            return f"{relation} @{tail.kind or place + 2}", tail.text
    return relation, tail.text


def _aside(number: int, kind: str, reason: str, text: str = "") -> Row:
    line = _clean(text[:200]) if kind == "bad" else None
    return Row(number, kind, reason, line, None, None, None, 1.0, 1.0, None, None, False, 0)


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair, as JSON may spell it, becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
