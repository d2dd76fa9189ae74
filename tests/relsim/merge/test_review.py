from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relsim import Facts, redundancy
from relsim.merge.review import Review, read_review


def facts() -> Facts:
    pairs = [(f"a{i % 7}", f"b{i}") for i in range(40)]
    rows = [(h, "wrote", t) for h, t in pairs[:30]] + [(h, "penned", t) for h, t in pairs[8:]]
    rows += [(f"x{i}", "melts", f"y{i}") for i in range(20)] + [(f"u{i}", "thaws out", f"v{i}") for i in range(20)]
    return Facts.from_triples(rows)


def test_marks_in_pairs_tsv_are_honoured(tmp_path: Path) -> None:
    first = redundancy(facts())
    assert [c.members for c in first.clusters] == [("penned", "wrote")]
    first.save(tmp_path)
    lines = (tmp_path / "pairs.tsv").read_text().splitlines()
    assert lines[0].endswith("\treview")
    marked = [lines[0]]
    for line in lines[1:]:
        names = set(line.split("\t")[:2])
        marked.append(
            line + {("penned", "wrote"): "reject", ("melts", "thaws out"): "Accept"}.get(tuple(sorted(names)), "")
        )  # type: ignore[arg-type]
    (tmp_path / "marked.tsv").write_text("\n".join(marked) + "\n")
    review = read_review(tmp_path / "marked.tsv")
    assert review.marks == {("penned", "wrote"): False, ("melts", "thaws out"): True}
    again = redundancy(facts(), review=review)
    assert [set(c.members) for c in again.clusters] == [{"melts", "thaws out"}]
    rows = {tuple(sorted((r["rel_a"], r["rel_b"]))): r for r in again.pairs}
    assert (rows["penned", "wrote"]["kind"], rows["penned", "wrote"]["p_redundant"]) == ("different", 0.0)
    assert (rows["melts", "thaws out"]["kind"], rows["melts", "thaws out"]["decided_by"]) == ("equivalent", "review")


def test_marks_that_chain_what_is_rejected_are_named() -> None:
    review = Review(
        {("melts", "thaws out"): True, ("melts", "wrote"): True, ("thaws out", "wrote"): False}, "marks.tsv"
    )
    with pytest.raises(ValueError, match=r"marks\.tsv: 'thaws out' and 'wrote' are rejected, but accepted pairs chain"):
        redundancy(facts(), review=review)


def test_fifty_marks_recalibrate() -> None:
    """Stated odds are the square of the true ones: fifty marks bring the probabilities back."""
    rng = np.random.default_rng(0)
    names = [f"r{k}" for k in range(2000)]
    truth = rng.beta(1, 1, 1000)
    odds = truth / (1 - truth)
    stated = odds**2 / (1 + odds**2)
    i, j = np.arange(0, 2000, 2), np.arange(1, 2000, 2)
    errors = []
    for trial in range(20):
        rows = np.random.default_rng(trial).choice(1000, 50, replace=False)
        marks = {tuple(sorted((names[i[k]], names[j[k]]))): bool(rng.random() < truth[k]) for k in rows}
        fixed = Review(marks).recalibration(names, i, j, stated)(stated)  # type: ignore[arg-type]
        errors.append(np.abs(fixed - truth).mean())
    assert np.mean(errors) < 0.75 * np.abs(stated - truth).mean()


def test_few_marks_and_certainties_change_nothing() -> None:
    p = np.array([0.0, 0.2, 1.0])
    same = Review({("a", "b"): True}).recalibration(["a", "b"], np.array([0]), np.array([1]), np.array([0.3]))
    np.testing.assert_array_equal(same(p), p)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got nothing"),
        ("rel_a\trel_b\nx\ty\n", "expected TAB columns rel_a, rel_b and review"),
        ("rel_a\trel_b\treview\nx\ty\tperhaps\n", "mark 'perhaps', expected accept or reject"),
        ("rel_a\trel_b\treview\nx\ty\tyes\ny\tx\tno\n", "marked accept in one row and reject in another"),
    ],
)
def test_a_review_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "marks.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_review(path)


def test_marks_on_phrases_that_were_not_compared_are_counted() -> None:
    review = Review({("melts", "thaws out"): True, ("melts", "vanished"): False, ("gone", "lost"): True}, "marks.tsv")
    (warning,) = (text for text in redundancy(facts(), review=review).warnings if "marks" in text)
    assert warning.startswith("2 of 3 marks of marks.tsv change nothing") and "'vanished'" in warning


def test_marks_of_a_spreadsheet_are_read(tmp_path: Path) -> None:
    path = tmp_path / "marks.tsv"
    path.write_bytes(b'\xef\xbb\xbfrel_a\trel_b\treview\r\n"called ""x"""\t"lies in, at"\taccept\r\n')
    assert read_review(path).marks == {('called "x"', "lies in, at"): True}
    path.write_bytes(b'"rel_a"\t"rel_b"\t"review"\n"x"\t"y"\t"no"\n')
    assert read_review(path).marks == {("x", "y"): False}
    path.write_text("rel_a\trel_b\treview\nx\ty\tno\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"marks\.tsv: UTF-16 text, expected UTF-8"):
        read_review(path)


def inverse() -> Facts:
    rows = [(f"p{i}", "has child", f"c{i}") for i in range(120)]
    rows += [(tail, "is child of", head) for head, _, tail in rows]
    return Facts.from_triples([*rows, *((f"x{i}", "is near", f"y{i % 7}") for i in range(60))])


@pytest.mark.parametrize(("word", "merged"), [("accept", False), ("yes", False), ("same", True)])
def test_an_inverse_that_is_accepted_stays_an_inverse(word: str, merged: bool, tmp_path: Path) -> None:
    facts = inverse()
    result = redundancy(facts, neural="never")
    result.save(tmp_path)
    header, *lines = (tmp_path / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    (place,) = [k for k, line in enumerate(lines) if "has child" in line and "is child of" in line]
    assert "\tinverse\t" in lines[place]
    lines[place] += word
    (tmp_path / "pairs.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    review = read_review(tmp_path / "pairs.tsv")
    again = redundancy(facts, neural="never", review=review)
    assert any({"has child", "is child of"} <= set(c.members) for c in again.clusters) is merged
    assert any("merge nothing" in warning for warning in again.warnings) is not merged


def test_marks_do_not_lift_what_evidence_holds_down() -> None:
    """Pairs that should have common facts and have none are held below one half, whatever a reader says of others."""
    words = (
        "mayor manager owner painter driver teacher doctor lawyer pilot writer singer dancer farmer baker banker judge"
    )
    rows = []
    for word in words.split():
        rows += [(f"{word} man {i}", f"{word} of", f"{word} town {i}") for i in range(3)]
        rows += [(f"{word} man {i}", f"is a {word} of", f"{word} town {i + 50}") for i in range(3)]
    facts = Facts.from_triples(rows)
    before = redundancy(facts, neural="never", contradiction="on")
    pairs = [(min(row["rel_a"], row["rel_b"]), max(row["rel_a"], row["rel_b"])) for row in before.pairs]
    held = [pair for pair, word in zip(pairs, before.details["held"], strict=True) if word]
    other = next(
        pair for pair, row in zip(pairs, before.pairs, strict=True) if row["p_redundant"] < 0.1 and pair not in held
    )
    assert len(held) > 13 and not before.clusters
    marks = {**dict.fromkeys(held[:11], True), other: False}
    after = redundancy(facts, neural="never", contradiction="on", review=Review(marks))
    found = {(min(row["rel_a"], row["rel_b"]), max(row["rel_a"], row["rel_b"])): row for row in after.pairs}
    assert all(found[pair]["p_redundant"] < 0.5 for pair in held[11:]) and len(after.clusters) == 11
