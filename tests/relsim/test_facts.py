from __future__ import annotations

import duckdb
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import relsim
from relsim import Facts

TRIPLES = [("a", "r", "b"), ("c", "s", "a"), ("a", "r", "b"), ("b", "r", "c")]


def columns(**changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "head": torch.tensor([0, 1]),
        "relation": torch.tensor([0, 0]),
        "tail": torch.tensor([1, 0]),
        "count": torch.ones(2),
        "entities": ["a", "b"],
        "relations": ["r"],
    }
    return base | changes


def named(facts: Facts) -> dict[tuple[str, str, str], float]:
    rows = zip(facts.head.tolist(), facts.relation.tolist(), facts.tail.tolist(), facts.count.tolist(), strict=True)
    return {(facts.entities[h], facts.relations[r], facts.entities[t]): n for h, r, t, n in rows}


def test_equal_triples_become_one_fact_with_their_counts() -> None:
    facts = Facts.from_triples(TRIPLES, counts=[1, 2, 3, 4.5])
    assert named(facts) == {("a", "r", "b"): 4.0, ("b", "r", "c"): 4.5, ("c", "s", "a"): 2.0}
    assert facts.entities == ["a", "b", "c"]
    assert facts.relations == ["r", "s"]
    assert facts.support.tolist() == [2, 1]
    assert facts.mentions.tolist() == [8.5, 2.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from("abcd")] * 3), max_size=30), st.randoms())
def test_order_of_the_input_does_not_matter(triples: list[tuple[str, str, str]], random: object) -> None:
    facts = Facts.from_triples(triples)
    shuffled = list(triples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = Facts.from_triples(shuffled)
    for name in ("head", "relation", "tail", "count"):
        assert torch.equal(getattr(facts, name), getattr(again, name))
    assert float(facts.count.sum()) == len(triples)
    assert named(facts) == {triple: triples.count(triple) for triple in set(triples)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"head": torch.tensor([0, 2])}, ValueError, "0 to 2, expected 0 to 1"),
        ({"tail": torch.tensor([-1, 0])}, ValueError, "tail ids"),
        ({"head": torch.tensor([0.0, 1.0])}, TypeError, "head is torch.float32"),
        ({"head": torch.tensor([0])}, ValueError, r"shape \(1,\)"),
        ({"count": torch.tensor([1.0, 0.0])}, ValueError, "count of fact 1 is 0.0"),
        ({"count": torch.tensor([float("nan"), 1.0])}, ValueError, "count of fact 0 is nan"),
        ({"count": torch.ones(2, dtype=torch.float64)}, TypeError, "count is torch.float64"),
        ({"head": torch.tensor([0, 0]), "tail": torch.tensor([1, 1])}, ValueError, "more than once.*from_triples"),
        ({"entities": ["a", "a"]}, ValueError, "entities holds 'a' twice"),
        ({"head_type": torch.tensor([1])}, ValueError, "head_type"),
        (
            {"head_type": torch.tensor([0, 2]), "types": ["x", "y"]},
            ValueError,
            "head_type ids run to 2, expected 0 to 1",
        ),
    ],
)
def test_a_wrong_column_is_named(changes: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Facts(**columns(**changes))  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=12), st.booleans())
def test_a_repeated_fact_is_found_wherever_it_stands(rows: list[tuple[int, int, int]], in_order: bool) -> None:
    rows = sorted(rows) if in_order else rows
    relation, head, tail = (torch.tensor(column) for column in zip(*rows, strict=True))
    fields = {"head": head, "relation": relation, "tail": tail, "count": torch.ones(len(rows))}
    names = {"entities": ["a", "b", "c"], "relations": ["r", "s", "t"]}
    if len(set(rows)) == len(rows):
        assert len(Facts(**fields, **names)) == len(rows)  # type: ignore[arg-type]
    else:
        with pytest.raises(ValueError, match="more than once") as raised:
            Facts(**fields, **names)  # type: ignore[arg-type]
        repeated = [row for row in rows if rows.count(row) > 1]
        twice = [(names["entities"][h], names["relations"][r], names["entities"][t]) for r, h, t in repeated]
        assert any(str(fact) in str(raised.value) for fact in twice)


def test_no_facts_at_all_is_valid() -> None:
    facts = Facts.from_triples([])
    assert (len(facts), facts.num_entities, facts.num_relations) == (0, 0, 0)
    assert [len(part) for part in facts.split(0.5, seed=0)] == [0, 0]
    assert relsim.redundancy(facts).summary()


@pytest.mark.parametrize("row", [("a", "r"), ("a", "", "b"), ("a", "r", 3), ("a", " ", "b")])
def test_a_broken_row_is_named(row: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="row 1"):
        Facts.from_triples([("a", "r", "b"), row])


@pytest.mark.parametrize("row", ["abc", b"abc", 7, None])
def test_a_word_is_no_triple(row: object) -> None:
    with pytest.raises(ValueError, match=r"row 1 is .*, expected three non-empty strings"):
        Facts.from_triples([("a", "r", "b"), row])


def test_triples_must_be_rows() -> None:
    with pytest.raises(TypeError, match=r"triples is a str, expected rows of \(head, relation, tail\)"):
        Facts.from_triples("abc")


@pytest.mark.parametrize("counts", [[1.0], [1.0, -1.0, 1.0, 1.0], [1.0, float("inf"), 1.0, 1.0]])
def test_broken_counts_are_refused(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="count"):
        Facts.from_triples(TRIPLES, counts=counts)


def test_frames_of_every_kind_give_the_same_facts() -> None:
    head, relation, tail = (list(column) for column in zip(*TRIPLES, strict=True))
    expected = named(Facts.from_triples(TRIPLES, counts=[1, 2, 3, 4]))
    lists = {"head": head, "relation": relation, "tail": tail, "n": [1, 2, 3, 4]}
    arrays = {name: np.array(values, dtype=object if name != "n" else np.int64) for name, values in lists.items()}
    table = duckdb.connect().from_query(
        "SELECT * FROM (VALUES ('a','r','b',1), ('c','s','a',2), ('a','r','b',3), ('b','r','c',4)) v(head, relation, tail, n)"
    )
    for frame in (lists, arrays, table):
        assert named(Facts.from_frame(frame, count="n")) == expected
    renamed = {"subj": head, "rel": relation, "obj": tail}
    assert len(Facts.from_frame(renamed, head="subj", relation="rel", tail="obj")) == 3


@pytest.mark.parametrize("library", ["pandas", "polars", "polars lazy", "pyarrow", "pyarrow in pandas"])
@pytest.mark.parametrize(
    "names", [("arg1", "rel", "arg2"), ("subject", "predicate", "object"), ("head", "relation", "tail")]
)
def test_frames_of_every_library_by_their_usual_names(library: str, names: tuple[str, str, str]) -> None:
    module = pytest.importorskip(library.split()[0])
    table = {"id": [1, 2, 3, 4]} | dict(zip(names, map(list, zip(*TRIPLES, strict=True)), strict=True))
    if library.startswith("pyarrow"):
        pytest.importorskip("pandas")
        frame = module.table(table) if library == "pyarrow" else module.table(table).to_pandas()
    else:
        frame = module.DataFrame(table)
        frame = frame.lazy() if library == "polars lazy" else frame
    assert named(Facts.from_frame(frame)) == named(Facts.from_triples(TRIPLES))
    assert named(Facts.from_frame(frame, count="id")) == named(Facts.from_triples(TRIPLES, counts=[1, 2, 3, 4]))


def test_a_column_of_counts_is_found_by_its_usual_name() -> None:
    table = dict(zip(("subject", "predicate", "object"), map(list, zip(*TRIPLES, strict=True)), strict=True))
    for name in ("count", "freq", "Times"):
        counted = Facts.from_frame(table | {name: [1, 2, 3, 4]})
        assert named(counted) == named(Facts.from_triples(TRIPLES, counts=[1, 2, 3, 4]))
    # A weight may be anything.
    assert named(Facts.from_frame(table | {"weight": [1, 2, 3, 4]})) == named(Facts.from_triples(TRIPLES))


def test_missing_values_of_every_library_are_named() -> None:
    broken = {"arg1": ["a", None], "rel": ["r", "r"], "arg2": ["b", "c"]}
    for library in ("pandas", "polars"):
        module = pytest.importorskip(library)
        with pytest.raises(ValueError, match="'arg1' has no value in row 1"):
            Facts.from_frame(module.DataFrame(broken))


def test_frames_with_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match=r"no column 'relation'.*nearest: 'relations'"):
        Facts.from_frame({"head": ["a"], "relations": ["r"], "tail": ["b"]})
    with pytest.raises(ValueError, match="'tail' has no value in row 1"):
        Facts.from_frame({"head": ["a", "b"], "relation": ["r", "r"], "tail": ["b", None]})
    with pytest.raises(ValueError, match="unequal lengths"):
        Facts.from_frame({"head": ["a", "b"], "relation": ["r"], "tail": ["b"]})
    with pytest.raises(TypeError, match="cannot read a int as a table"):
        Facts.from_frame(7)


def test_select_renumbers_in_the_given_order() -> None:
    facts = Facts.from_triples(TRIPLES)
    chosen = facts.select([1, 0])
    assert chosen.relations == ["s", "r"]
    assert named(chosen) == named(facts)
    assert named(facts.select([1])) == {("c", "s", "a"): 1.0}
    with pytest.raises(ValueError, match="twice"):
        facts.select([0, 0])
    with pytest.raises(ValueError, match="expected 0 to 1"):
        facts.select([2])


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 0.99), st.integers(0, 5))
def test_split_is_a_partition_and_keeps_a_fact_of_every_relation(fraction: float, seed: int) -> None:
    facts = Facts.from_triples([(f"e{i}", f"r{i % 4}", f"e{i * 7 % 31}") for i in range(50)])
    kept, held = facts.split(fraction, seed=seed)
    assert named(kept) | named(held) == named(facts)
    assert len(kept) + len(held) == len(facts)
    assert held.support.tolist() == [int(fraction * n) for n in facts.support.tolist()]
    assert int(kept.support.min()) >= 1
    again, _ = facts.split(fraction, seed=seed)
    assert torch.equal(kept.head, again.head)


def test_a_whole_set_cannot_be_held_out() -> None:
    with pytest.raises(ValueError, match=r"fraction is 1.0"):
        Facts.from_triples(TRIPLES).split(1.0, seed=0)
