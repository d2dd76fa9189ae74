"""The rule-based judgement of 300 pairs of WD50K relations that is shipped, and the argument types of its relations."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from relsim.evaluation.judgements import Ratings, read_ratings
from tasks.errors import RunError

__all__ = ["SHA256", "relation_judgements", "signatures"]

# Of relation_judgements.tsv, fixed before any score of these pairs was computed.
SHA256 = "4474221d2c977e7a6e741bef3b0d1445bbe8e0f5de7306130bb75bd773183fd4"


def relation_judgements() -> Ratings:
    """Grades 0 to 4 of two passes over 300 pairs of P-ids by a written rule (in the file's head); not human ratings.

    Raises
    ------
    RunError : the file is not the one whose hash was fixed.
    """
    path = Path(__file__).with_name("relation_judgements.tsv")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise RunError(f"{path} has changed: its SHA-256 is not the one that was fixed before the first measurement")
    return read_ratings(path)


def signatures() -> dict[str, tuple[str, str]]:
    """Kind of subject and of object of 162 relations, assigned from names and descriptions without looking at facts."""
    with Path(__file__).with_name("relation_signatures.tsv").open(encoding="utf-8", newline="") as file:
        return {row["relation"]: (row["subject"], row["object"]) for row in csv.DictReader(file, delimiter="\t")}
