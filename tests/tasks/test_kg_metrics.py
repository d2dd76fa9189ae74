"""Relation ranking, triple classification, options and recipes of knowledge-graph completion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

import tasks
from tasks.api import configure, recipes
from tasks.config import config_hash, to_dict
from tasks.data.kg import graph_from_triples
from tasks.data.load import load
from tasks.errors import RunError, UsageError
from tasks.kg.classification import best_threshold, classify
from tasks.kg.config import KGConfig, ModelConfig
from tasks.kg.ranking import both_directions, rank_relations
from tasks.kg.scorers import SCORERS
from tasks.kg.task import KnowledgeGraphCompletion
from tasks.optim import build_optimizers

from .graphs import graph


def scorer(data: Any, name: str = "hybonet") -> Any:
    torch.manual_seed(0)
    model = SCORERS[name](data.num_entities, data.num_relations, ModelConfig(scorer=name, dim=5)).double()
    torch.nn.init.normal_(model.head_bias), torch.nn.init.normal_(model.tail_bias)
    return model


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_relation_ranks_are_those_of_a_loop(seed: int) -> None:
    data = graph(entities=5, relations=4, seed=seed)  # few entities: often several relations hold
    model = scorer(data)
    known = {tuple(row) for s in ("train", "valid", "test") for row in getattr(data, s).tolist()}
    wanted = []
    for h, r, t in data.test.tolist():
        score = {}
        for j in range(4):
            forward, back = (torch.tensor([v]) for v in (j, j + 4))
            head, tail = torch.tensor([h]), torch.tensor([t])
            score[j] = float((model.score(head, forward, tail) + model.score(tail, back, head)).detach())
        others = [score[j] for j in range(4) if j != r and (h, j, t) not in known]
        wanted.append(1 + sum(s > score[r] for s in others) + sum(s == score[r] for s in others) / 2)
    assert rank_relations(model, data.test, data).tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_is_better(rows: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([float(s) for s, _ in rows]), np.array([label for _, label in rows])
    right = ((scores > best_threshold(scores, labels)) == labels).sum()
    for cut in (-np.inf, *scores, *(scores + 0.5)):
        assert right >= ((scores > cut) == labels).sum()


def test_thresholds_are_of_relations_and_of_validation() -> None:
    data = graph(negatives=True)
    model = scorer(data)
    told: dict[str, list[Any]] = {}
    for split in ("valid", "test"):
        triples = torch.cat([getattr(data, split), data.negatives[split]])
        labels = np.arange(len(triples)) < len(getattr(data, split))
        told[split] = [both_directions(model, *triples.unbind(1)).numpy(), labels, triples[:, 1].numpy()]
    scores, labels, relations = told["test"]
    said = np.zeros(len(scores), dtype=bool)
    for r in range(3):
        own = told["valid"][2] == r
        fitted = best_threshold(told["valid"][0][own], told["valid"][1][own]) if own.any() else None
        assert fitted is not None
        said[relations == r] = scores[relations == r] > fitted
    metrics = classify(model, data, "test")
    assert metrics["triples_accuracy"] == pytest.approx((said == labels).mean())
    assert metrics["triples_f1"] == pytest.approx(f1_score(labels, said))
    assert metrics["triples_roc_auc"] == pytest.approx(roc_auc_score(labels, scores))


def test_scores_that_are_not_finite_are_no_metric() -> None:
    data = graph(negatives=True)
    model = scorer(data)
    model.tail_bias.data[:] = torch.nan
    model.entity.weight.data[:] = torch.nan
    for call in (lambda: classify(model, data, "test"), lambda: rank_relations(model, data.test, data)):
        with pytest.raises(RunError, match="not finite"):
            call()


def test_negatives_of_own_files_are_read_and_checked(small_graph: Path) -> None:
    (small_graph / "valid_negatives.txt").write_text("n1\tnext\tn7\n")
    (small_graph / "test_negatives.txt").write_text("n2\tnext\tn8\nn0\tnext\tn1\n")
    data = load(f"{small_graph}/")
    assert {split: len(rows) for split, rows in data.negatives.items()} == {"valid": 1, "test": 2}
    with pytest.raises(UsageError, match="a negative of the test split of g has a name that no split has: a r z"):
        one = [("a", "r", "b")]
        graph_from_triples("g", {"train": one, "valid": one, "test": one}, negatives={"test": [("a", "r", "z")]})
    true = {"train": one, "valid": one, "test": one}
    warned = graph_from_triples("g", true, negatives={"test": one}).warnings
    assert any("1 of 1 negatives of the test split of g are true triples of it" in w for w in warned)


def test_a_run_measures_what_is_asked_for(small_graph: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "data": f"{small_graph}/", "model": {"dim": 6}, "negatives": {"count": 8}, "quiet": True,
        "train": {"epochs": 2, "batch_size": 16, "eval_every": 1},
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"has no hard negatives .*valid_negatives.txt and test_negatives.txt"):
        tasks.run("kg", out=tmp_path / "a", evaluate="triples", monitor="triples_accuracy", **options)
    (small_graph / "valid_negatives.txt").write_text("n1\tnext\tn7\n")
    (small_graph / "test_negatives.txt").write_text("n2\tnext\tn8\nn3\thalf\tn9\n")
    result = tasks.run("kg", out=tmp_path / "b", evaluate=["link", "relation", "triples"], **options)
    assert result.metrics["test"].keys() >= {"mrr", "paper_mrr", "relation_mrr", "relation_hits@3", "triples_f1"}
    again = tasks.run("kg", out=tmp_path / "b", evaluate="link,relation,triples", **options)
    assert again.metrics == result.metrics


@pytest.mark.parametrize("optimizer", ["adam", "riemannian_adam", "riemannian_sgd"])
@pytest.mark.parametrize("name", ["hybonet", "mure"])
def test_sparse_updates_move_the_rows_of_the_batch_alone(optimizer: str, name: str) -> None:
    data = graph()
    config = configure(
        "kg", overrides={"sparse": True, "model": {"scorer": name, "dim": 4}, "negatives": {"count": 2},
                         "train": {"optimizer": optimizer, "batch_size": 2}},
    )  # fmt: skip
    task = KnowledgeGraphCompletion(config)
    model = task.build(config, data)
    entity = model.entity.weight if name == "hybonet" else model.entity
    before = entity.detach().clone()
    optimizers = build_optimizers(task.param_groups(model), config.train)
    batch = task.train_batch(data, 0, 0, seed=0)
    task.step(model, batch)[0].backward()
    for one in optimizers:
        one.step()
    moved = (entity.detach() != before).any(1).nonzero().flatten().tolist()
    drawn = {int(e) for key in ("head", "tail", "negatives") for e in batch[key]}
    assert moved and set(moved) <= drawn and {int(e) for e in batch["head"]} <= set(moved)


def test_a_sparse_run_with_clipping_trains_and_resumes(small_graph: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "data": f"{small_graph}/", "model": {"dim": 6}, "negatives": {"count": 8}, "quiet": True, "sparse": True,
        "checkpoint_seconds": 0.0, "train": {"epochs": 3, "batch_size": 16, "eval_every": 1, "clip": 0.1},
    }  # fmt: skip
    first = tasks.run("kg", out=tmp_path / "a", **options)
    (tmp_path / "a" / "result.json").unlink()
    assert tasks.resume(tmp_path / "a", quiet=True).metrics == first.metrics


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"model": {"scorer": "mure", "bound": "space"}}, "bound space is of hybonet; leave it out for mure"),
        ({"model": {"rotation": "full"}}, "rotation full is of lorentz_rotate.*leave it out for hybonet"),
        ({"model": {"scorer": "complex"}}, "it is odd; got 32: take 31 or 33"),
        ({"model": {"scorer": "rote", "dim": 2}}, "--model.dim must be at least 3, got 2"),
        ({"negatives": {"sharing": "none"}}, "unknown 'none' to --negatives.sharing"),
        ({"negatives": {"sharing": "all", "count": 7}}, "--negatives.count is for drawn negatives; leave it out"),
        ({"loss": {"kind": "crossentropy"}}, "Did you mean 'cross_entropy'"),
        ({"loss": {"margin": 2.0}}, "--loss.margin is of --loss.kind margin; leave it out for logistic"),
        ({"loss": {"kind": "margin", "smoothing": 0.1}}, "smoothing is of logistic and cross_entropy"),
        ({"loss": {"kind": "margin", "multi_label": True}}, "take --loss.kind logistic, not margin"),
        ({"loss": {"kind": "margin"}, "negatives": {"weight": 9.0}}, "--negatives.weight is of the logistic loss"),
        ({"loss": {"multi_label": True}}, "add --negatives.sharing all"),
        ({"regularization": {"n3": 0.1}}, "n3 is of distmult and complex; for hybonet take --model.max_norm"),
        ({"sparse": True, "negatives": {"sharing": "all"}}, "every entity has a gradient; leave --sparse out"),
        ({"sparse": True, "train": {"optimizer": "adagrad"}}, "works with --train.optimizer adam, .* not adagrad"),
        ({"sparse": True, "train": {"weight_decay": 0.1}}, "sparse Adam takes no --train.weight-decay"),
        ({"evaluate": "links"}, "unknown 'links' to --evaluate. Did you mean 'link'"),
        ({"monitor": "relation_mrr"}, "--monitor relation_mrr needs --evaluate link,relation"),
        ({"monitor": "mr"}, "unknown metric 'mr' to --monitor"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_fix(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        configure("kg", overrides=overrides)


def test_options_that_joined_later_leave_hashes_and_folders_of_older_runs_alone() -> None:
    tree = to_dict(configure("kg", recipe="kg/wn18rr-32"))
    assert config_hash("kg", tree).startswith("6abd6c5182ff")  # of the runs behind the first published results
    assert config_hash("kg", to_dict(KGConfig())).startswith("f7adebe44d6c")
    assert list(tree) == ["data", "model", "negatives", "train", "monitor", "seed"] and "bound" not in tree["model"]
    changed = configure("kg", overrides={"model": {"bound": "space"}, "loss": {"kind": "margin"}})
    tree = to_dict(changed)
    assert tree["model"]["bound"] == "space" and tree["loss"]["kind"] == "margin" and tree["loss"]["margin"] == 1.0
    assert configure("kg", overrides=tree) == changed


def test_compare_tells_runs_apart_by_an_option_that_joined_later(small_graph: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": f"{small_graph}/", "negatives": {"count": 8}, "quiet": True}
    train = {"epochs": 1, "batch_size": 16}
    for kind in ("logistic", "margin"):
        tasks.run("kg", out=tmp_path / kind, loss={"kind": kind}, train=train, model={"dim": 4}, **options)
    table = tasks.compare([tmp_path / "logistic", tmp_path / "margin"], by=["loss"])
    assert sorted(str(row[0]).split()[0] for row in table.rows) == ["default", "margin"]


KG_RECIPES = [name for name in recipes() if name.startswith("kg/")]


@pytest.mark.parametrize("name", KG_RECIPES)
def test_a_recipe_trains_a_few_steps(name: str) -> None:
    data = graph(entities=40, relations=5)
    config = configure("kg", recipe=name, overrides={"train": {"batch_size": 20}})
    task = KnowledgeGraphCompletion(config)
    torch.manual_seed(0)
    model = task.build(config, data)
    optimizers = build_optimizers(task.param_groups(model), config.train)
    losses = []
    for step in range(8):
        loss, _ = task.step(model, task.train_batch(data, step // 4, step % 4, seed=0))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    metrics = task.evaluate(model.eval(), data, "valid")
    assert 0 < metrics[config.monitor] <= 1


@pytest.mark.parametrize(
    "name", ["WD50K", "Kinship", "NELL-995-h100", "CoDEx-S", "CoDEx-M", "Countries-S2", "Countries-S3"]
)
def test_the_other_real_graphs_have_their_sizes(name: str, data_dir: Path) -> None:
    sizes = {
        "WD50K": (41_334, 486, 164_631, 23_860, 46_023),
        "Kinship": (104, 25, 8_544, 1_068, 1_074),
        "NELL-995-h100": (22_411, 43, 50_314, 3_763, 3_746),
        "CoDEx-S": (2_034, 42, 32_888, 1_827, 1_828),
        "CoDEx-M": (17_050, 51, 185_584, 10_310, 10_311),
        "Countries-S2": (271, 2, 1_063, 24, 24),
        "Countries-S3": (271, 2, 985, 24, 24),
    }
    data = load(name, data_dir)
    assert (data.num_entities, data.num_relations, len(data.train), len(data.valid), len(data.test)) == sizes[name]
    assert not [w for w in data.warnings if "SHA-256" in w]
    if name == "CoDEx-M":
        assert {split: len(rows) for split, rows in data.negatives.items()} == {"valid": 10_310, "test": 10_311}
