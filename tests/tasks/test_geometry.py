"""Delta and Krackhardt's score against closed forms, networkx and enumeration."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cli import main
from tasks.data.edges import load_edges, parse_edge_file
from tasks.errors import UsageError
from tasks.geometry import PLANE, delta_hyperbolicity, describe, geometry, krackhardt


def edges_of(graph: nx.Graph) -> tuple[np.ndarray, int]:
    number = {node: i for i, node in enumerate(graph)}
    return np.array([(number[a], number[b]) for a, b in graph.edges], dtype=np.int64).reshape(-1, 2), len(graph)


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 30), st.integers(0, 10**6))
def test_a_tree_has_delta_zero(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = np.array([(i, rng.integers(i)) for i in range(1, size)])
    delta = delta_hyperbolicity(edges, size)
    assert delta.exact and (delta.worst, delta.mean, delta.relative) == (0, 0, 0)
    assert delta.diameter == nx.diameter(nx.Graph(edges.tolist()))


@pytest.mark.parametrize("n", range(3, 20))
def test_delta_of_cycles(n: int) -> None:
    delta = delta_hyperbolicity(*edges_of(nx.cycle_graph(n)))
    assert delta.worst == n // 4 - (0.5 if n % 4 == 1 else 0)
    assert delta.diameter == n // 2


@pytest.mark.parametrize(("a", "b"), [(2, 2), (2, 6), (3, 4), (4, 5)])
def test_delta_of_grids_and_of_complete_graphs(a: int, b: int) -> None:
    assert delta_hyperbolicity(*edges_of(nx.grid_2d_graph(a, b))).worst == min(a, b) - 1
    assert delta_hyperbolicity(*edges_of(nx.complete_graph(a + b))).worst == 0


def test_delta_is_the_mean_and_the_largest_of_all_quadruples_of_the_largest_component() -> None:
    graph = nx.gnm_random_graph(16, 26, seed=3)
    graph = nx.disjoint_union(graph.subgraph(max(nx.connected_components(graph), key=len)), nx.cycle_graph(5))
    core = graph.subgraph(max(nx.connected_components(graph), key=len))
    d = dict(nx.all_pairs_shortest_path_length(core))
    deltas = []
    for x, y, z, w in combinations(core, 4):
        sums = sorted([d[x][y] + d[z][w], d[x][z] + d[y][w], d[x][w] + d[y][z]])
        deltas.append((sums[2] - sums[1]) / 2)
    edges, size = edges_of(graph)
    doubled = np.concatenate(
        [edges, edges[:, ::-1], np.array([[0, 0]])]
    )  # repetitions, directions and loops do not matter
    found = delta_hyperbolicity(doubled, size)
    assert (found.worst, found.points, found.quadruples) == (max(deltas), len(core), len(deltas))
    assert found.mean == pytest.approx(np.mean(deltas), abs=1e-12)


def test_a_sample_approaches_the_mean_and_never_exceeds_the_worst() -> None:
    edges, size = edges_of(nx.random_regular_graph(3, 60, seed=1))
    whole = delta_hyperbolicity(edges, size, quadruples=10**6)
    part = delta_hyperbolicity(edges, size, quadruples=4000, sources=40, seed=5)
    assert whole.exact and not part.exact and part.worst <= whole.worst
    assert part.mean == pytest.approx(whole.mean, rel=0.15)
    assert part == delta_hyperbolicity(edges, size, quadruples=4000, sources=40, seed=5)


def test_graphs_of_nothing() -> None:
    empty = delta_hyperbolicity(np.empty((0, 2), dtype=np.int64), 3)
    assert (empty.worst, empty.diameter, empty.exact) == (0, 0, True) and np.isnan(empty.relative)
    assert np.isnan(krackhardt(np.array([[1, 1]]), 3))
    pair = delta_hyperbolicity(np.array([[0, 1]]), 2)
    assert (pair.worst, pair.diameter, pair.exact) == (0, 1, True)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 14), st.integers(1, 40), st.integers(0, 10**6))
def test_krackhardt_is_that_of_the_reachability_matrix(size: int, count: int, seed: int) -> None:
    edges = np.random.default_rng(seed).integers(size, size=(count, 2))
    graph = nx.DiGraph(edges.tolist())
    reach = {(a, b) for a in graph for b in nx.descendants(graph, a) if a != b}
    expected = sum((b, a) not in reach for a, b in reach) / len(reach) if reach else float("nan")
    assert krackhardt(edges, size) == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_krackhardt_of_a_dag_and_of_a_symmetric_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    dag = np.sort(rng.integers(300, size=(900, 2)), axis=1)
    assert krackhardt(dag, 300) == 1
    assert krackhardt(np.concatenate([dag, dag[:, ::-1]]), 300) == 0
    mixed = np.concatenate([dag, dag[:20, ::-1]])
    whole = krackhardt(mixed, 300)
    monkeypatch.setattr("tasks.geometry._BITS", 3000)  # several rounds of reachability
    assert krackhardt(mixed, 300) == whole and 0 < whole < 1


def test_the_recommended_k_gives_hyperbolic_space_the_relative_delta_of_the_data() -> None:
    cycle = parse_edge_file("\n".join(f"{i} {(i + 1) % 24}" for i in range(24)), "c24")
    found = geometry(cycle)
    assert found.delta.relative == 1.0 and found.k == 10  # beyond the bound
    # A space of that k and of diameter 12.2 has delta sqrt(k) log(1 + sqrt 2), hence this relative delta.
    assert 2 * found.unbounded_k**0.5 * PLANE / 12.2 == pytest.approx(found.delta.relative)
    assert "hardly tree-like" in found.recommendation()
    tree = geometry(parse_edge_file("a,b\nb,c\nb,d\na,e\n", "tree"))
    assert tree.unbounded_k == 0 and tree.k == 0.1 and "delta 0" in describe(tree)


def test_edge_files_of_every_form(tmp_path: Path) -> None:
    for text, count in (
        ("a\tb\nb\tc\n", 1),
        ("# remark\na,b\nb,c\n", 1),
        ("a b\n\nb c\n", 1),
        ("a\tr\tb\nb\ts\tc\n", 2),
    ):
        file = tmp_path / "edges.txt"
        file.write_text(text)
        data = load_edges(str(file))
        assert (data.nodes, data.edges.tolist(), len(data.relations)) == (["a", "b", "c"], [[0, 1], [1, 2]], count)
    with pytest.raises(UsageError, match=r"line 2: expected 2 cells as before, got 3"):
        parse_edge_file("a\tb\na\tb\tc\n", "x")
    with pytest.raises(UsageError, match="holds no edge"):
        parse_edge_file("\n", "x")
    with pytest.raises(UsageError, match=r"line 2: field larger than field limit"):
        parse_edge_file(f"a,b\na,{'b' * 200_000}\n", "x")


def test_however_few_quadruples_are_asked_for_one_is_seen() -> None:
    edges, size = edges_of(nx.grid_2d_graph(3, 3))
    for seed in range(20):  # four of four nodes drawn at random are different in one of ten draws
        found = delta_hyperbolicity(edges, size, quadruples=1, sources=4, seed=seed)
        assert found.quadruples == 1 and found.worst == found.mean and not found.exact


def test_the_command_on_graphs_hierarchies_and_mistakes(
    small_graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["geometry", str(small_graph)]) == 0
    out = capsys.readouterr().out
    assert "numbers: 40 nodes, 74 training triples" in out and "recommended k" in out
    assert "half" in out and "next" in out  # a row for each relation
    assert main(["geometry", "taxonomy", "--quadruples", "2000"]) == 0
    assert "is a" in capsys.readouterr().out
    assert main(["geometry", "taxnomy"]) == 2
    assert "Did you mean 'taxonomy'?" in capsys.readouterr().err
    assert main(["geometry", str(tmp_path / "none.csv")]) == 2
    assert main(["geometry", "taxonomy", "--sources", "1"]) == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.tsv").write_text("a\tb\n")
    capsys.readouterr()
    assert main(["geometry", "own.tsv"]) == 2
    assert "To read the file of that name, write ./own.tsv." in capsys.readouterr().err
    assert main(["geometry", ""]) == 2
    assert "write ./" not in capsys.readouterr().err


def test_plain_graphs_are_edges_in_both_directions(tmp_path: Path) -> None:
    folder = tmp_path / "ring"
    folder.mkdir()
    (folder / "edges.csv").write_text("0,1\n1,2\n2,3\n3,0\n3,3\n")
    found = load_edges(f"{folder}/")
    expected = {(0, 1), (1, 2), (2, 3), (0, 3), (1, 0), (2, 1), (3, 2), (3, 0), (3, 3)}
    assert len(found.edges) == len(expected) and set(map(tuple, found.edges.tolist())) == expected
    result = geometry(found)
    assert result.krackhardt == 0 and (result.nodes, result.delta.worst) == (4, 1.0)  # Gromov's delta of a 4-cycle
    assert "directions of 5 undirected edges" in describe(result)


def test_airport_is_a_graph(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["geometry", "Airport", "--data-dir", str(data_dir), "--quadruples", "500", "--sources", "30"]) == 0
    assert "Airport: 3,188 nodes" in capsys.readouterr().out


def test_wordnet_mammals_are_nearly_a_tree(data_dir: Path) -> None:
    found = geometry(load_edges("WordNet-mammals", data_dir), quadruples=5000)
    assert found.krackhardt == 1 and found.delta.mean < 0.01 and found.edges == 1182
