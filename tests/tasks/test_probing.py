"""Structural probes: treebanks, states by word, formulas, scores, controls, runs from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import tasks
from lorentz.math import dist
from tasks.api import configure
from tasks.data.load import load
from tasks.data.treebank import Sentence, own_treebank, parse_conllu
from tasks.errors import UsageError
from tasks.probing.config import GEOMETRIES, ProbeConfig
from tasks.probing.metrics import depth_scores, distance_scores, spanning_edges
from tasks.probing.model import Probe
from tasks.probing.states import layer_number, word_states
from tasks.probing.task import Probing

from .conftest import FILLERS, make_backbone

TREE = """# sent_id = one
# text = the film's plot was dull.
1\tthe\tthe\tDET\t_\t_\t2\tdet\t_\t_
2-3\tfilm's\t_\t_\t_\t_\t_\t_\t_\t_
2\tfilm\tfilm\tNOUN\t_\t_\t4\tnmod\t_\t_
3\t's\t's\tPART\t_\t_\t2\tcase\t_\t_
4\tplot\tplot\tNOUN\t_\t_\t6\tnsubj\t_\t_
5\twas\tbe\tAUX\t_\t_\t6\tcop\t_\t_
6\tdull\tdull\tADJ\t_\t_\t0\troot\t_\t_
6.1\tseen\tsee\tVERB\t_\t_\t_\t_\t_\t_
7\t.\t.\tPUNCT\t_\t_\t6\tpunct\t_\t_

"""


def sentence(heads: list[int], punctuation: list[int] | None = None) -> Sentence:
    marks = np.zeros(len(heads), dtype=bool)
    marks[punctuation or []] = True
    return Sentence(tuple("w" * len(heads)), np.array(heads), marks)


def random_tree(n: int, seed: int) -> Sentence:
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    heads = np.full(n, -1)
    for i in range(1, n):
        heads[order[i]] = order[rng.integers(i)]
    return sentence(heads.tolist(), rng.permutation(n)[: n // 5].tolist())


def lines(tree: Sentence, words: tuple[str, ...]) -> str:
    rows = [
        f"{i + 1}\t{word}\t_\t{'PUNCT' if mark else 'X'}\t_\t_\t{head + 1}\t_\t_\t_"
        for i, (word, head, mark) in enumerate(zip(words, tree.heads, tree.punctuation, strict=True))
    ]
    return "\n".join(rows) + "\n\n"


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """Folder of a treebank whose words tell their depth: one word for each."""
    folder = tmp_path / "bank"
    folder.mkdir()
    for seed, (split, count) in enumerate({"train": 60, "dev": 12, "test": 12}.items()):
        text = ""
        for i in range(count):
            tree = random_tree(5 + i % 4, 100 * seed + i)
            text += lines(tree, tuple(FILLERS[min(int(depth), len(FILLERS) - 1)] for depth in tree.depths))
        (folder / f"{split}.conllu").write_text(text, encoding="utf-8")
    return folder


def test_a_tree_is_over_the_words_of_conllu_alone() -> None:
    (one,) = parse_conllu(TREE, "x")
    assert one.words == ("the", "film", "'s", "plot", "was", "dull", ".")
    assert one.heads.tolist() == [1, 3, 1, 5, 5, -1, 5] and one.punctuation.tolist() == [False] * 6 + [True]
    assert one.depths.tolist() == [3, 2, 3, 1, 1, 0, 1]
    assert one.distances[0].tolist() == [0, 1, 2, 2, 4, 3, 4]


@pytest.mark.parametrize("seed", range(4))
def test_distances_are_those_of_the_graph(seed: int) -> None:
    tree = random_tree(12, seed)
    graph = nx.Graph([(i, int(h)) for i, h in enumerate(tree.heads) if h >= 0])
    wanted = dict(nx.all_pairs_shortest_path_length(graph))
    assert tree.distances.tolist() == [[wanted[i][j] for j in range(12)] for i in range(12)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\t0\troot", "\t4\troot", "x, one: 0 words have the head 0"),
        ("6\tcop", "0\tcop", "x, one: 2 words have the head 0"),
        ("2\tdet", "1\tdet", "x, one: the heads make a circle"),
        ("6\tnsubj", "9\tnsubj", "x, one: every word needs a number"),
        ("6\tnsubj", "_\tnsubj", "x, one: every word needs a number"),
        ("5\twas", "8\twas", "x, one: every word needs a number"),
        ("6\tdull\tdull\tADJ\t_\t_\t0", "6\tdull\tdull\tADJ\t_\t_\tzero", "x, after 0 sentences: no CoNLL-U"),
    ],
)
def test_what_is_no_tree_is_named(old: str, new: str, message: str) -> None:
    assert old in TREE
    with pytest.raises(UsageError, match=message):
        parse_conllu(TREE.replace(old, new), "x")


def test_a_folder_without_a_split_says_which(bank: Path) -> None:
    assert {split: len(some) for split, some in own_treebank(bank).sentences.items()} == {
        "train": 60, "valid": 12, "test": 12,
    }  # fmt: skip
    (bank / "test.conllu").unlink()
    with pytest.raises(UsageError, match=r"holds no test.conllu"):
        own_treebank(bank)
    (bank / "test.conllu").write_text("# nothing\n\n")
    with pytest.raises(UsageError, match="the test split of bank holds no sentence"):
        own_treebank(bank)


def test_the_published_treebank_has_its_published_size(data_dir: Path) -> None:
    found = load("UD_English-LinES", kind="treebank")
    assert [len(found.sentences[s]) for s in ("train", "valid", "test")] == [3457, 1118, 1121] and not found.warnings
    assert sum(len(one.words) for one in found.sentences["test"]) == 19_984


def test_states_are_means_of_the_tokens_of_a_word(backbones: dict[str, str]) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (auto.from_pretrained(backbones["bert"]) for auto in (AutoTokenizer, AutoModel))
    words = [["the", "film-plot", "is", "good"], ["it", "was"], ["a", "\u200b", "cast"], ["the"] * 40]
    found = word_states(model, tokenizer, words, layers=[0, 2], max_length=30)
    assert set(found) == {0, 2} and found[2].kept.tolist()[:2] == [0, 1] and 3 not in found[2].kept
    ids = tokenizer(words[0], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        states = model.eval()(**ids, output_hidden_states=True).hidden_states[2][0]
    # [CLS] the film - plot is good [SEP]: the second word has three tokens
    wanted = torch.stack([states[1], states[2:5].mean(0), states[5], states[6]])
    torch.testing.assert_close(found[2].vectors[:4], wanted)
    batch, there = found[2].batch(np.array([1, 0]))
    assert there.tolist() == [[True, True, False, False], [True] * 4] and not batch[0, 2:].any()
    torch.testing.assert_close(batch[1], wanted)


def test_states_of_lorentz_models_are_space_coordinates(backbones: dict[str, str]) -> None:
    from transformers import AutoModel, AutoTokenizer

    for kind, size in (("lorentz", 16), ("twin", 16)):
        tokenizer = AutoTokenizer.from_pretrained(backbones["bert"])
        model = AutoModel.from_pretrained(backbones[kind])
        found = word_states(model, tokenizer, [["the", "film"]], layers=[1], max_length=None)[1]
        with torch.no_grad():
            points = model.eval()(torch.tensor([tokenizer("the film")["input_ids"]])).last_hidden_state[0, 1:3]
        torch.testing.assert_close(found.vectors, points[:, 1:] if kind == "lorentz" else points)
        assert found.vectors.shape == (2, size)


def test_layers_count_from_the_embeddings_and_from_the_end(backbones: dict[str, str]) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(backbones["bert"])
    assert [layer_number(model, layer) for layer in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for layer in (3, -4):
        with pytest.raises(UsageError, match=r"has the layers 0 \(its embeddings\) to 2"):
            layer_number(model, layer)


def probe(geometry: str, target: str, k: float = 1.0) -> Probe:
    torch.manual_seed(0)
    return Probe(6, ProbeConfig(target=target, geometry=geometry, rank=4, k=k)).double()


@pytest.mark.parametrize("k", [0.5, 1.0, 3.0])
def test_probes_are_their_formulas(k: float) -> None:
    states = torch.randn(2, 5, 6, dtype=torch.float64)
    for geometry in GEOMETRIES:
        between, deep = probe(geometry, "distance", k), probe(geometry, "depth", k)
        weight = between.map.weight.detach()
        found, depths = between(states).detach(), deep(states).detach()
        for b in range(2):
            for i in range(5):
                for j in range(5):
                    x, y = states[b, i], states[b, j]
                    if geometry == "euclidean":
                        wanted, depth = (weight @ (x - y)).square().sum(), (weight @ x).square().sum()
                    elif geometry == "lorentz":
                        px, py = (weight @ torch.cat([(k + h.square().sum()).sqrt()[None], h]) for h in (x, y))
                        tx, ty = ((k + p.square().sum()).sqrt() for p in (px, py))
                        wanted, depth = -2 * k + 2 * (tx * ty - px @ py), -2 * k + 2 * tx * k**0.5
                    else:
                        wx, wy = weight @ x, weight @ y
                        root = k**0.5
                        nx_, ny = wx.norm(), wy.norm()
                        cosh = (nx_ / root).cosh() * (ny / root).cosh() - (nx_ / root).sinh() * (ny / root).sinh() * (
                            wx @ wy
                        ) / (nx_ * ny)
                        wanted, depth = k * cosh.clamp(min=1).acosh() ** 2, nx_**2
                    torch.testing.assert_close(found[b, i, j], wanted, atol=1e-7, rtol=1e-9)
                    torch.testing.assert_close(depths[b, i], depth, atol=1e-9, rtol=1e-9)


def test_the_poincare_probe_is_that_of_the_paper() -> None:
    """Points of the ball by exp and a Möbius matrix product, as geoopt computes them."""
    import geoopt

    ball = geoopt.PoincareBall(c=1.0)
    p, q = torch.randn(4, 6, dtype=torch.float64) / 4, torch.randn(4, 4, dtype=torch.float64) / 2
    states = torch.randn(1, 5, 6, dtype=torch.float64) / 2
    ours = probe("poincare", "distance")
    ours.map.weight.data = q @ p
    points = ball.mobius_matvec(q, ball.expmap0(states @ p.T))
    wanted = ball.dist(points[:, :, None], points[:, None]) ** 2 / 4  # exp of half the length in geoopt's ball
    scaled = probe("poincare", "distance")
    scaled.map.weight.data = q @ p
    inside = dist(scaled.points(states)[:, :, None], scaled.points(states)[:, None], k=1.0) ** 2
    torch.testing.assert_close(ours(states), inside)
    doubled = probe("poincare", "distance")
    doubled.map.weight.data = 2 * q @ p
    torch.testing.assert_close(doubled(states) / 4, wanted)


def test_a_large_k_is_the_euclidean_probe() -> None:
    states = torch.randn(2, 5, 6, dtype=torch.float64)
    for target in ("distance", "depth"):
        flat = probe("euclidean", target)
        for geometry in ("lorentz", "poincare"):
            curved = probe(geometry, target, k=1e10)
            weight = flat.map.weight.detach()
            zeros = torch.zeros(4, 1, dtype=torch.float64)
            curved.map.weight.data = torch.cat([zeros, weight], 1) if geometry == "lorentz" else weight
            torch.testing.assert_close(curved(states), flat(states), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_spanning_tree_is_the_smallest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.random((7, 7))
    distances += distances.T
    np.fill_diagonal(distances, 0)
    words = np.array([0, 1, 2, 4, 6])
    graph = nx.Graph()
    graph.add_weighted_edges_from((i, j, distances[i, j]) for i in words for j in words if i < j)
    wanted = {tuple(sorted(edge)) for edge in nx.minimum_spanning_edges(graph, data=False)}
    assert spanning_edges(distances, words) == wanted
    distances[0, 1] = distances[1, 0] = 0.0  # two words at one place are as near as can be
    assert (0, 1) in spanning_edges(distances, words)


def test_scores_of_the_truth_are_perfect_and_punctuation_counts_in_no_tree() -> None:
    trees = [random_tree(n, n) for n in range(2, 12)]
    found = distance_scores(trees, [tree.distances.astype(float) for tree in trees])
    # where a mark of punctuation joins two words, the treebank has no edge between them
    assert found["dspr"] == pytest.approx(1) and found["uuas"] == 1
    deep = depth_scores([sentence([-1, 0, 1, 1, 3])], [np.array([0.0, 1, 2, 2, 3])])
    assert deep == {"root_accuracy": 1.0, "nspr": pytest.approx(1)}
    marked = sentence([1, 2, -1, 2, 3], [2])  # the root itself is punctuation
    assert depth_scores([marked], [np.array([1.0, 2, 0, 3, 4])])["root_accuracy"] == 0
    assert distance_scores([marked], [marked.distances])["uuas"] == 1  # edges 0-1 and 3-4 remain


def test_correlations_are_means_over_words_sentences_and_lengths() -> None:
    rng = np.random.default_rng(0)
    trees = [random_tree(n, 10 * n + i) for n, i in ((4, 0), (5, 0), (5, 1), (9, 0), (51, 0))]
    guesses = [rng.random((len(tree.words),) * 2).round(1) for tree in trees]
    by_sentence = [
        np.mean([spearmanr(guess[i], tree.distances[i]).statistic for i in range(len(guess))])
        for guess, tree in zip(guesses, trees, strict=True)
    ]
    wanted = np.mean([np.mean(by_sentence[1:3]), by_sentence[3]])  # lengths 4 and 51 are left out
    assert distance_scores(trees, guesses)["dspr"] == pytest.approx(wanted)
    depths = [guess[0] for guess in guesses]
    single = [spearmanr(depth, tree.depths).statistic for depth, tree in zip(depths, trees, strict=True)]
    assert depth_scores(trees, depths)["nspr"] == pytest.approx(np.mean([np.mean(single[1:3]), single[3]]))


def test_the_order_of_words_scores_as_published(data_dir: Path, tmp_path: Path) -> None:
    """A tree that joins neighbours has .43 of the edges of EWT."""
    found = tasks.run("probing", data="UD_English-EWT", model={"name": "linear"}, runs=tmp_path, quiet=True)
    assert found.metrics["test"]["uuas"] == pytest.approx(0.43, abs=0.005)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_run_learns_what_the_words_tell(bank: Path, backbones: dict[str, str], tmp_path: Path, geometry: str) -> None:
    options: dict[str, Any] = {
        "data": str(bank),
        "model": {"name": backbones["bert"], "layer": 0},
        "train": {"epochs": 30, "lr": 0.01, "batch_size": 8, "eval_every": 10},
        "runs": tmp_path / "runs",
        "quiet": True,
    }
    deep = tasks.run("probing", **options, probe={"target": "depth", "geometry": geometry, "rank": 8})
    assert deep.metrics["test"]["nspr"] > 0.9 and set(deep.metrics["test"]) == {"root_accuracy", "nspr"}
    assert (deep.values["manifold"] is None) == (geometry != "lorentz")
    order = tasks.run("probing", **{**options, "model": {"name": "linear"}}, probe={"target": "depth"})
    assert order.metrics["test"]["nspr"] < 0.5


def test_a_stopped_run_goes_on_to_the_same_bits(bank: Path, backbones: dict[str, str], tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "data": str(bank),
        "model": {"name": backbones["lorentz"], "random": True},
        "train": {"epochs": 3, "batch_size": 8, "eval_every": 1},
        "max_train": 30,
        "quiet": True,
    }
    whole = tasks.run("probing", **options, out=tmp_path / "whole")
    step = Probing.step
    calls = []

    def stops(self: Probing, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Probing, "step", stops)
        with pytest.raises(KeyboardInterrupt):
            tasks.run("probing", **options, out=tmp_path / "cut")
    again = tasks.resume(tmp_path / "cut", quiet=True)
    assert again.metrics == whole.metrics
    weights = [(folder / "model.safetensors").read_bytes() for folder in (again.folder, whole.folder)]
    assert weights[0] == weights[1]


def test_bad_options_say_what_is_known(bank: Path, tmp_path: Path) -> None:
    for overrides, message in (
        ({"probe": {"geometry": "lorenz"}}, "Did you mean 'lorentz'"),
        ({"probe": {"target": "depths"}}, "Did you mean 'depth'"),
        ({"probe": {"target": "depth"}, "monitor": "uuas"}, "a probe of depth has others"),
        ({"probe": {"geometry": "euclidean", "learnable_k": True}}, "has no k"),
        ({"probe": {"rank": 0}}, "at least 1"),
    ):
        with pytest.raises(UsageError, match=message):
            configure("probing", overrides=overrides)


def test_long_sentences_are_left_out_and_counted(bank: Path, tmp_path: Path) -> None:
    folder = make_backbone(tmp_path / "short", "bert", max_position_embeddings=8)
    found = tasks.run(
        "probing", data=str(bank), model={"name": str(folder)}, train={"epochs": 1}, runs=tmp_path / "runs", quiet=True
    )
    left = [warning for warning in found.values["warnings"] if "left out" in warning]
    assert len(left) == 3 and left[0].startswith(
        "30 sentences of the train split"
    )  # of 7 and 8 words, with two more tokens
