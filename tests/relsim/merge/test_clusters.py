from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relsim.merge.clusters import cluster_id, complete_linkage


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 9), st.floats(0.05, 0.95), st.data())
def test_every_pair_of_a_cluster_reaches_the_threshold(size: int, threshold: float, data: st.DataObject) -> None:
    pairs = list(itertools.combinations(range(size), 2))
    p = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(pairs), max_size=len(pairs))))
    known = np.array(data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs))))
    i, j = (np.array([pair[k] for pair in pairs], dtype=np.int64) for k in (0, 1))
    clusters = complete_linkage(i[known], j[known], p[known], size=size, threshold=threshold)
    value = {pair: float(x) for pair, x, k in zip(pairs, p, known, strict=True) if k}
    members = [member for ids, _ in clusters for member in ids]
    assert len(members) == len(set(members))
    for ids, matrix in clusters:
        assert len(ids) > 1
        for a, b in itertools.combinations(range(len(ids)), 2):
            assert value[ids[a], ids[b]] >= threshold
            assert matrix[a, b] == value[ids[a], ids[b]]
    # Complete: two lone things whose pair reaches the threshold would have been joined.
    alone = [x for x in range(size) if x not in members]
    assert all(value.get(pair, 0.0) < threshold for pair in itertools.combinations(alone, 2))


def test_a_chain_is_not_a_cluster() -> None:
    i, j = np.array([0, 1, 2]), np.array([1, 2, 3])
    clusters = complete_linkage(i, j, np.array([0.9, 0.8, 0.9]), size=4, threshold=0.5)
    assert [ids for ids, _ in clusters] == [[0, 1], [2, 3]]


def test_links_of_a_reader_are_kept() -> None:
    i, j, p = np.array([0, 1, 0, 3]), np.array([1, 2, 2, 4]), np.array([0.9, 0.9, 0.9, 0.8])
    free = complete_linkage(i, j, p, size=6, threshold=0.5)
    assert [ids for ids, _ in free] == [[0, 1, 2], [3, 4]]
    apart = complete_linkage(i, j, p, size=6, threshold=0.5, cannot=[(0, 2)])
    assert all(not {0, 2} <= set(ids) for ids, _ in apart)
    joined = complete_linkage(i, j, p, size=6, threshold=0.5, must=[(2, 5), (5, 4)])
    assert any({2, 4, 5} <= set(ids) for ids, _ in joined)
    with pytest.raises(ValueError, match="held apart"):
        complete_linkage(i, j, p, size=6, threshold=0.5, must=[(0, 1), (1, 2)], cannot=[(0, 2)])


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 8), st.data())
def test_no_cannot_link_is_ever_broken_and_every_must_link_holds(size: int, data: st.DataObject) -> None:
    pairs = list(itertools.combinations(range(size), 2))
    p = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(pairs), max_size=len(pairs))))
    mark = data.draw(st.lists(st.sampled_from(["must", "cannot", ""]), min_size=len(pairs), max_size=len(pairs)))
    must, cannot = ([x for x, m in zip(pairs, mark, strict=True) if m == word] for word in ("must", "cannot"))
    i, j = (np.array([pair[k] for pair in pairs], dtype=np.int64) for k in (0, 1))
    try:
        clusters = complete_linkage(i, j, p, size=size, threshold=0.5, must=must, cannot=cannot)
    except ValueError:
        return
    where = {x: n for n, (ids, _) in enumerate(clusters) for x in ids}
    assert all(a in where and where[a] == where.get(b) for a, b in must)
    assert all(a not in where or where[a] != where.get(b) for a, b in cannot)


def test_a_cluster_keeps_its_id_when_members_change() -> None:
    assert cluster_id("wrote") == cluster_id("wrote") != cluster_id("penned")
    assert len(cluster_id("é")) == 10
