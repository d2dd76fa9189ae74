"""Staged rows -> facts: spellings made one, equal facts added up, the unsupported set aside; all out of core."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from relsim.facts import Facts
from relsim.ingest.report import IngestReport, Merged
from relsim.ingest.staging import LEVELS, Tally
from relsim.phrases.normalise import argument_key, relation_key

__all__ = ["gather"]

_SHOWN = 5
_FETCH = 100_000


def gather(
    db: Any, tally: Tally, *, skipped: tuple[tuple[str, str], ...], min_support: int, normalise: bool, nary: str
) -> Facts:
    """Group, filter by support, and number names in sorted order."""
    functions = {
        "text_key": lambda form: relation_key(form),
        "lemma_key": lambda form: relation_key(form, lemmatised=True),
        "plain_key": argument_key,
    }
    for name, function in functions.items():
        db.create_function(name, function, ["VARCHAR"], "VARCHAR")
    try:
        _name(db, "phrase", "SELECT relation AS form, level, n FROM staged", "text_key(form)", "lemma_key(form)")
        arguments = "SELECT {} AS form, level, n FROM staged"
        both = f"{arguments.format('head')} UNION ALL {arguments.format('tail')}"
        _name(db, "argument", both, "plain_key(form)", "plain_key(form)")
    finally:
        for name in functions:
            db.remove_function(name)
    # Names of a knowledge base were left alone, and are not worth a line in the report.
    normalise = normalise and db.execute("SELECT max(level) > 0 FROM file").fetchone()[0]
    phrases, negated = _merged(db, "phrase") if normalise else None, None
    if normalise:
        negated = db.execute(
            "SELECT count(DISTINCT id) FROM phrase_form WHERE level > 0 AND starts_with(key, 'not ')"
        ).fetchone()[0]
    arguments_merged = _merged(db, "argument") if normalise else None
    _facts(db, tally.typed, min_support)
    below = db.execute(
        "SELECT name, support FROM support JOIN phrase_name USING (id) WHERE NOT kept ORDER BY support DESC, name"
    ).fetchall()
    c = tally.counts
    report = IngestReport(
        formats=tally.formats,
        detected=tally.detected,
        lines=c["lines"],
        used=c["used"],
        bad=c["bad"],
        blank=c["blank"],
        header=c["header"],
        aside=c["aside"],
        left_out=c["left"],
        below_confidence=c["low"],
        latin1_lines=c["latin1"],
        extractions=c["extractions"],
        further_arguments=c["dropped"],
        nary=nary,
        bad_reasons=dict(tally.reasons["bad"].most_common()),
        left_out_reasons=dict(tally.reasons["left"].most_common()),
        bad_examples=tuple(tally.examples),
        notes=tuple(tally.notes),
        warnings=tuple(tally.warnings),
        skipped=skipped,
        phrases=phrases,
        arguments=arguments_merged,
        negated=negated,
        distinct_facts=db.execute("SELECT count(*) FROM fact").fetchone()[0],
        distinct_phrases=db.execute("SELECT count(*) FROM support").fetchone()[0],
        min_support=min_support,
        below_support=tuple(below),
        below_support_facts=sum(support for _, support in below),
    )
    return _load(db, tally.typed, report)


def _name(db: Any, what: str, source: str, text: str, lemma: str) -> None:
    """Key every spelling; the most frequent one names all of a key. Tables ``what_form`` and ``what_name``."""
    db.execute(
        f"CREATE TABLE {what}_key AS SELECT form, level, n, CASE level WHEN {LEVELS['text']} THEN {text} "
        f"WHEN {LEVELS['lemma']} THEN {lemma} ELSE form END AS key "
        f"FROM (SELECT form, level, sum(n) AS n FROM ({source}) GROUP BY form, level)"
    )
    # One spelling may stand under two keys if files differ in their level: the key then tells the names apart.
    db.execute(
        f"CREATE TABLE {what}_name AS SELECT key, row_number() OVER (ORDER BY name) - 1 AS id, name FROM ("
        f"  SELECT key, CASE WHEN count(*) OVER (PARTITION BY form) > 1 THEN form || ' [' || key || ']' ELSE form END"
        f"  AS name FROM (SELECT key, min(struct_pack(minus := -n, form := form)).form AS form FROM {what}_key "
        f"  GROUP BY key))"
    )
    db.execute(
        f"CREATE TABLE {what}_form AS SELECT form, level, n, key, id FROM {what}_key JOIN {what}_name USING (key);"
        f"DROP TABLE {what}_key; ALTER TABLE {what}_name DROP COLUMN key"
    )


def _merged(db: Any, what: str) -> Merged:
    forms, names = db.execute(f"SELECT count(DISTINCT form), count(DISTINCT id) FROM {what}_form").fetchone()
    examples = db.execute(
        f"SELECT any_value(name), list(DISTINCT form) FILTER (form <> name) FROM {what}_form JOIN {what}_name USING (id) "
        f"WHERE id IN (SELECT id FROM {what}_form GROUP BY id HAVING count(DISTINCT form) > 1 "
        f"ORDER BY sum(n) DESC, id LIMIT {_SHOWN}) GROUP BY id ORDER BY sum(n) DESC, id"
    ).fetchall()
    return Merged(forms, names, tuple((name, tuple(sorted(others)[:_SHOWN])) for name, others in examples))


def _facts(db: Any, typed: bool, min_support: int) -> None:
    """Tables ``fact`` (ids, counts, types), ``support`` (of each phrase), and the names that are kept, renumbered."""
    types = ", head_type, tail_type" if typed else ""
    db.execute(
        f"CREATE TABLE {'stated' if typed else 'fact'} AS "
        f"SELECT p.id::INTEGER AS r, x.id::INTEGER AS h, y.id::INTEGER AS t, sum(s.n) AS n{types} "
        "FROM staged s JOIN phrase_form p ON p.form = s.relation AND p.level = s.level "
        "JOIN argument_form x ON x.form = s.head AND x.level = s.level "
        f"JOIN argument_form y ON y.form = s.tail AND y.level = s.level GROUP BY 1, 2, 3{types}"
    )
    if typed:  # the type that is stated most often, the first by name among equals
        votes = " ".join(
            f"LEFT JOIN (SELECT r, h, t, min(struct_pack(minus := -n, form := {side})).form AS {side} FROM "
            f"(SELECT r, h, t, {side}, sum(n) AS n FROM stated WHERE {side} IS NOT NULL GROUP BY ALL) GROUP BY r, h, t) "
            "USING (r, h, t)"
            for side in ("head_type", "tail_type")
        )
        db.execute(
            "CREATE TABLE fact AS SELECT r, h, t, n, head_type, tail_type FROM "
            f"(SELECT r, h, t, sum(n) AS n FROM stated GROUP BY r, h, t) {votes}; DROP TABLE stated"
        )
    db.execute(
        "DROP VIEW staged; DROP TABLE raw; DROP TABLE argument_form;"
        f"CREATE TABLE support AS SELECT r AS id, count(*) AS support, count(*) >= {int(min_support)} AS kept "
        "FROM fact GROUP BY r;"
        "CREATE TABLE kept_phrase AS SELECT id, row_number() OVER (ORDER BY id) - 1 AS new FROM support WHERE kept;"
        "CREATE TABLE kept_argument AS SELECT id, row_number() OVER (ORDER BY id) - 1 AS new FROM ("
        "  SELECT h AS id FROM fact WHERE r IN (SELECT id FROM kept_phrase) UNION"
        "  SELECT t FROM fact WHERE r IN (SELECT id FROM kept_phrase))"
    )
    more = ", head_type, tail_type" if typed else ""
    db.execute(
        f"CREATE TABLE kept_fact AS SELECT p.new::INTEGER AS r, x.new::INTEGER AS h, y.new::INTEGER AS t, n::FLOAT AS n"
        f"{more} FROM fact f JOIN kept_phrase p ON p.id = f.r JOIN kept_argument x ON x.id = f.h "
        "JOIN kept_argument y ON y.id = f.t ORDER BY 1, 2, 3"
    )


def _load(db: Any, typed: bool, report: IngestReport) -> Facts:
    found = db.execute("SELECT r, h, t, n FROM kept_fact ORDER BY r, h, t").fetchnumpy()
    ids = {key: torch.from_numpy(found.pop(key).astype(np.int64)) for key in "rht"}
    count = torch.from_numpy(found.pop("n").astype(np.float32))
    types = _types(db) if typed else {}
    return Facts(
        head=ids["h"],
        relation=ids["r"],
        tail=ids["t"],
        count=count,
        entities=_names(db, "argument"),
        relations=_names(db, "phrase"),
        ingest=report,
        **types,
    )


def _names(db: Any, what: str) -> list[str]:
    cursor = db.execute(f"SELECT name FROM kept_{what} JOIN {what}_name USING (id) ORDER BY new")
    names: list[str] = []
    while rows := cursor.fetchmany(_FETCH):
        names += [name for (name,) in rows]
    return names


def _types(db: Any) -> dict[str, Any]:
    """Types of the arguments of each fact; facts whose argument has none share the type ""."""
    db.execute(
        "CREATE TABLE type_name AS SELECT name, row_number() OVER (ORDER BY name) - 1 AS id FROM ("
        "  SELECT coalesce(head_type, '') AS name FROM kept_fact UNION SELECT coalesce(tail_type, '') FROM kept_fact)"
    )
    found = db.execute(
        "SELECT x.id AS head_type, y.id AS tail_type FROM kept_fact JOIN type_name x ON x.name = coalesce(head_type, '') "
        "JOIN type_name y ON y.name = coalesce(tail_type, '') ORDER BY r, h, t"
    ).fetchnumpy()
    types = [name for (name,) in db.execute("SELECT name FROM type_name ORDER BY id").fetchall()]
    return {key: torch.from_numpy(ids.astype(np.int64)) for key, ids in found.items()} | {"types": types}
