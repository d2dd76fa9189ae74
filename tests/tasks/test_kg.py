"""Knowledge-graph completion against loops written from the definitions."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorentz import math as lm
from tasks.data.kg import KnownTails, graph_from_triples
from tasks.data.load import load
from tasks.data.sets import DATA
from tasks.errors import UsageError
from tasks.kg.config import KGConfig, ModelConfig, NegativesConfig
from tasks.kg.ranking import rank, ranking_metrics
from tasks.kg.scorers import SCORERS, HyboNet, MuRE, Scorer
from tasks.kg.task import KnowledgeGraphCompletion


def graph(entities: int = 12, relations: int = 3, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    rows = torch.stack([torch.randint(0, n, (60,), generator=g) for n in (entities, relations, entities)], 1).tolist()
    named = [(f"e{h:02}", f"r{r}", f"e{t:02}") for h, r, t in rows]
    return graph_from_triples("g", {"train": named[:40], "valid": named[40:50], "test": named[50:]})


@pytest.mark.parametrize("k", [0.5, 1.0, 1e8])
def test_hybonet_is_the_negative_lorentzian_distance_of_the_papers_map(k: float) -> None:
    torch.manual_seed(0)
    model = HyboNet(10, 3, ModelConfig(dim=6, k=k, margin=6.0)).double()
    for bias in (model.head_bias, model.tail_bias, model.relation.bias):
        torch.nn.init.normal_(bias)
    h, r, t = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 5, 2, 3]), torch.tensor([4, 4, 2, 9])
    x = lm.lift(model.entity.weight[h], k=k)
    x[:, 0] /= k**0.5  # time in units of sqrt(k)
    z = torch.stack([model.relation.weight[j] @ v for j, v in zip(r, x, strict=True)])
    time = 3.5 * torch.sigmoid(z[:, :1]) + 1.1 * k**0.5  # from z before the bias
    space = z[:, 1:] + model.relation.bias[r]
    space = space / space.norm(dim=1, keepdim=True) * (time.square() - k).sqrt()
    mapped, tail = lm.lift(space, k=k), lm.lift(model.entity.weight[t], k=k)
    expected = 6.0 - lm.sqdist(mapped, tail, k=k) + model.head_bias[h] + model.tail_bias[t]
    assert torch.allclose(model.score(h, r, t), expected, rtol=1e-6)


def test_the_published_score_is_margin_eight_at_k_one() -> None:
    torch.manual_seed(0)
    model = HyboNet(10, 3, ModelConfig(dim=6)).double()
    h, r, t = torch.tensor([0, 1]), torch.tensor([4, 5]), torch.tensor([7, 8])
    mapped = model.relation(model.embed(h), r)
    published = 8 + 2 * lm.minkowski(mapped, model.embed(t)) + model.head_bias[h] + model.tail_bias[t]
    assert torch.allclose(model.score(h, r, t), published, rtol=1e-10)


def test_mure_is_the_negative_squared_euclidean_distance() -> None:
    torch.manual_seed(0)
    model = MuRE(10, 2, ModelConfig(scorer="mure", dim=6)).double()
    torch.nn.init.normal_(model.bias)
    h, r, t = torch.tensor([0, 1, 2]), torch.tensor([0, 3, 1]), torch.tensor([4, 4, 2])
    mapped = torch.einsum("bij,bj->bi", model.weight[r], model.entity[h]) + model.bias[r]
    assert torch.allclose(model.score(h, r, t), 6 - (mapped - model.entity[t]).square().sum(1), rtol=1e-10)


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("relations", [3, 40])  # both ways of applying the relation matrices
def test_every_way_of_scoring_agrees(name: str, relations: int) -> None:
    torch.manual_seed(1)
    model: Scorer = SCORERS[name](9, relations, ModelConfig(scorer=name, dim=5)).double()
    torch.nn.init.normal_(model.head_bias), torch.nn.init.normal_(model.tail_bias)
    head, relation = torch.tensor([0, 3, 8]), torch.tensor([1, 2 * relations - 1, 0])
    everything = model.score_tails(head, relation)
    assert everything.shape == (3, 9)
    for e in range(9):
        assert torch.allclose(everything[:, e], model.score(head, relation, torch.full((3,), e)), rtol=1e-9)
    some = torch.tensor([5, 0])
    assert torch.allclose(model.score_tails(head, relation, some), everything[:, some])
    positive, negative = model.score_batch(head, relation, torch.tensor([2, 2, 4]), some)
    assert torch.allclose(negative, everything[:, some], rtol=1e-9)
    assert torch.allclose(positive, everything[torch.arange(3), torch.tensor([2, 2, 4])], rtol=1e-9)


def naive_ranks(
    scores: torch.Tensor, queries: torch.Tensor, known: set[tuple[int, int, int]]
) -> list[tuple[float, float]]:
    out = []
    for row, (h, r, t) in zip(scores.tolist(), queries.tolist(), strict=True):
        candidates = [e for e in range(len(row)) if e == t or (h, r, e) not in known]
        greater = sum(row[e] > row[t] for e in candidates)
        ties = sum(row[e] == row[t] for e in candidates if e != t)
        pessimistic = sum(row[e] >= row[t] for e in candidates if e == t or e != h)
        out.append((1 + greater + ties / 2, float(pessimistic)))
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_ranks_are_those_of_a_loop_over_candidates(seed: int, ties: bool) -> None:
    data = graph(seed=seed)

    class Table(MuRE):
        def score_columns(self, head, relation, columns):  # type: ignore[no-untyped-def]
            g = torch.Generator().manual_seed(7)
            table = torch.randint(0, 4 if ties else 10**6, (12, 6, 12), generator=g).float()
            return table[head, relation]

    model = Table(12, 3, ModelConfig(dim=3, margin=0.0))
    queries = data.with_inverses("test")
    known = {tuple(row) for s in ("train", "valid", "test") for row in data.with_inverses(s).tolist()}
    standard, paper = rank(model, queries, data.known("all"))
    expected = naive_ranks(model.score_tails(queries[:, 0], queries[:, 1]), queries, known)
    assert list(zip(standard.tolist(), paper.tolist(), strict=True)) == expected


def test_ranking_metrics_by_hand() -> None:
    metrics = ranking_metrics(torch.tensor([1.0, 2.0, 4.0, 20.0], dtype=torch.float64), "x_")
    assert metrics == {"x_mrr": (1 + 0.5 + 0.25 + 0.05) / 4, "x_hits@1": 0.25, "x_hits@3": 0.5, "x_hits@10": 0.75}


def test_known_tails_equal_a_dictionary() -> None:
    data = graph()
    everything = data.with_inverses("train")
    index: dict[tuple[int, int], set[int]] = {}
    for h, r, t in everything.tolist():
        index.setdefault((h, r), set()).add(t)
    heads = torch.arange(12).repeat_interleave(6)
    relations = torch.arange(6).repeat(12)
    row, tail = KnownTails(everything, 6).lookup(heads, relations)
    found: dict[int, set[int]] = {}
    for i, t in zip(row.tolist(), tail.tolist(), strict=True):
        found.setdefault(i, set()).add(t)
    assert found == {i: index[(i // 6, i % 6)] for i in range(72) if (i // 6, i % 6) in index}


@pytest.mark.parametrize("which", ["train", "all", "none"])
def test_no_true_triple_serves_as_a_negative(which: str) -> None:
    data = graph()
    task = KnowledgeGraphCompletion(KGConfig(negatives=NegativesConfig(count=8, filter=which)))
    model = task.build(KGConfig(model=ModelConfig(dim=4)), data)
    batch = task.train_batch(data, 0, 0, seed=3)
    splits = {"train": ["train"], "all": ["train", "valid", "test"], "none": []}[which]
    known = {tuple(row) for split in splits for row in data.with_inverses(split).tolist()}
    pairs = zip(batch["head"].tolist(), batch["relation"].tolist(), strict=True)
    true = {
        (i, j)
        for i, (h, r) in enumerate(pairs)
        for j, e in enumerate(batch["negatives"].tolist())
        if (h, r, e) in known
    }
    marked = set(
        zip(
            batch.get("true_row", torch.tensor([])).tolist(),
            batch.get("true_column", torch.tensor([])).tolist(),
            strict=True,
        )
    )
    assert marked == true
    positive, negative = model.score_batch(batch["head"], batch["relation"], batch["tail"], batch["negatives"])
    loss = torch.nn.functional.softplus(-positive).mean()
    keep = torch.ones_like(negative)
    for i, j in true:
        keep[i, j] = 0
    loss = (loss + 50 * (torch.nn.functional.softplus(negative) * keep).sum() / (len(positive) * 8)) / 51
    assert torch.allclose(task.step(model, batch)[0], loss)


def test_batches_are_a_pure_function_and_cover_an_epoch_once() -> None:
    data = graph()
    config = KGConfig(train=KGConfig().train.__class__(batch_size=7), negatives=NegativesConfig(count=4))
    one, other = KnowledgeGraphCompletion(config), KnowledgeGraphCompletion(config)
    n = one.n_batches(data)
    rows = []
    for index in range(n):
        batch = one.train_batch(data, 2, index, seed=1)
        rows += torch.stack([batch["head"], batch["relation"], batch["tail"]], 1).tolist()
        again = other.train_batch(data, 2, n - 1 - index, seed=1)
        assert torch.equal(one.train_batch(data, 2, n - 1 - index, seed=1)["negatives"], again["negatives"])
    assert sorted(rows) == sorted(data.with_inverses("train").tolist())


def test_own_files_with_crlf_and_gz_are_read_and_bad_lines_named(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"a\tr\tb\r\nb\tr\tc\r\n")
    with gzip.open(tmp_path / "valid.txt.gz", "wt") as file:
        file.write("a\tr\tc\n")
    (tmp_path / "test.tsv").write_text("c\tr\ta\n")
    data = load(f"{tmp_path}/")
    assert data.entities == ["a", "b", "c"] and data.train.tolist() == [[0, 0, 1], [1, 0, 2]] and data.split == "own"
    (tmp_path / "test.tsv").write_text("c\tr\ta\nc r a\n")
    with pytest.raises(UsageError, match=r"test.tsv, line 2: expected head TAB relation TAB tail, got 1 columns"):
        load(f"{tmp_path}/")
    (tmp_path / "valid.txt.gz").write_bytes((tmp_path / "valid.txt.gz").read_bytes()[:12])
    with pytest.raises(UsageError, match="no complete gzip file"):
        load(f"{tmp_path}/")


def test_a_missing_set_says_where_what_and_from_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYREL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"WN18RR is not in .*hyrel/kg/WN18RR. Put train.txt.*https://.*licence"):
        load("WN18RR")
    with pytest.raises(UsageError, match="Did you mean 'WN18RR'"):
        load("wn18r")


@pytest.mark.parametrize("name", ["WN18RR", "FB15k-237", "UMLS", "Nations", "Countries-S1"])
def test_real_graphs_have_the_published_sizes(name: str, data_dir: Path) -> None:
    sizes = {
        "WN18RR": (40_943, 11, 86_835, 3_034, 3_134),
        "FB15k-237": (14_541, 237, 272_115, 17_535, 20_466),
        "UMLS": (135, 46, 5_216, 652, 661),
        "Nations": (14, 55, 1_592, 199, 201),
        "Countries-S1": (271, 2, 1_111, 24, 24),
    }
    data = load(name, data_dir)
    assert (data.num_entities, data.num_relations, len(data.train), len(data.valid), len(data.test)) == sizes[name]
    assert not [w for w in data.warnings if "SHA-256" in w]
    assert all(len(digest) == 64 for digest in DATA[name].files.values())
