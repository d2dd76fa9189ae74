"""Benchmarks of link prediction: the plain loop computes what ours does, and tables hold what runs measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import geoopt
import pytest
import torch

from benchmarks import common, kg
from benchmarks.kg_rapidity import hierarchy
from benchmarks.reference import hybonet_loop as plain
from tasks import Result
from tasks.data.kg import graph_from_triples
from tasks.kg.config import ModelConfig
from tasks.kg.ranking import rank
from tasks.kg.scorers import HyboNet

from .graphs import graph


def test_plain_scores_and_ranks_are_ours() -> None:
    data = graph()
    torch.manual_seed(0)
    ours = HyboNet(12, 3, ModelConfig(dim=6)).double()
    for parameter in (ours.head_bias, ours.tail_bias, ours.relation.bias):
        torch.nn.init.normal_(parameter)
    loop = plain.PlainHyboNet(12, 3, 6).double()
    with torch.no_grad():
        loop.entity.copy_(ours.embed(None))
        loop.weight.copy_(ours.relation.weight), loop.bias.copy_(ours.relation.bias)
        loop.head_bias.copy_(ours.head_bias), loop.tail_bias.copy_(ours.tail_bias)
    h, r, t = data.with_inverses("test").unbind(1)
    torch.testing.assert_close(loop(h, r, t[:, None])[:, 0], ours.score(h, r, t))
    answers: dict[tuple[int, int], set[int]] = {}
    for split in ("train", "valid", "test"):
        for head, relation, tail in data.with_inverses(split).tolist():
            answers.setdefault((head, relation), set()).add(tail)
    queries = data.with_inverses("test")
    assert plain.rank_queries(loop, queries, answers) == rank(ours, queries, data.known("all"))[1].tolist()


def test_the_plain_loop_learns() -> None:
    data = graph()
    torch.manual_seed(0)
    loop = plain.PlainHyboNet(12, 3, 6)
    optimizer = geoopt.optim.RiemannianAdam(loop.parameters(), lr=plain.RATE, stabilize=1)
    losses = [plain.train_batch(loop, optimizer, b) for epoch in range(30) for b in plain.epoch_batches(data, 0, epoch)]
    assert losses[-1] < 0.8 * losses[0]


def test_tables_hold_every_metric_and_paired_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(task: str, *, recipe: str, seed: int, runs: str, **overrides: Any) -> Result:
        asked.append((recipe, seed, overrides))
        base = {"hybonet": 0.5, "mure": 0.4}[overrides["model"]["scorer"]]
        base += 0.001 * seed if base > 0.45 else 0.002 * seed
        base -= 0.05 - 0.001 * seed**2 if "k" in overrides["model"] else 0.0
        metrics = {"test": {metric: base for metric in kg.METRICS}}
        return Result(tmp_path, {"metrics": metrics, "seconds": {"train": 60.0, "evaluate": 60.0}})

    monkeypatch.setattr(kg, "run", run)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    words = ["kg", "--data", "WN18RR,FB15k-237", "--seeds", "0,1,2", "--protocol", "both", "--epochs", "7"]
    monkeypatch.setattr(sys, "argv", words)
    kg.main()
    assert len(asked) == 2 * 2 * 3 * 3 and {name for name, _, _ in asked} == {"kg/wn18rr-32", "kg/fb15k237-32"}
    standard = [o for _, _, o in asked if o.get("monitor") == "mrr"]
    assert len(standard) == len(asked) / 2 and all(o["negatives"] == {"filter": "train"} for o in standard)
    rows = {r["what"]: r for r in json.loads((tmp_path / "kg_wn18rr.json").read_text())["rows"]}
    ours = rows["WN18RR, hybonet, dimension 32: test paper_mrr"]
    assert (ours["value"], ours["n"], ours["reference"], ours["met"]) == (0.501, 3, 0.489, True)
    assert rows["WN18RR, mure, dimension 32: test paper_mrr"]["reference"] is None
    less = rows["WN18RR, hybonet, dimension 32: mrr less that of mure"]
    assert less["value"] == pytest.approx(0.099) and less["n"] == 3 and less["holm_p"] < 0.01
    assert "WN18RR, hybonet, dimension 32, standard protocol throughout: mrr less that of flat" in rows
    assert rows["WN18RR, flat, dimension 32: minutes of training and evaluation"]["value"] == 2.0


def test_words_of_models_become_options() -> None:
    assert kg.model_options("lorentz_rote:rotation=full:k=3") == {
        "scorer": "lorentz_rote",
        "rotation": "full",
        "k": "3",
    }
    assert kg.model_options("flat") == {"scorer": "hybonet", "bound": "space", "k": 1e6}
    assert kg.opponents("lorentz_rote", ["rote", "flat"]) == ["rote"]
    with pytest.raises(SystemExit, match="unknown model 'murp'"):
        kg.model_options("murp")


def test_the_hierarchy_of_a_relation_is_that_of_its_training_triples() -> None:
    one = [("a", "up", "b"), ("b", "up", "c"), ("a", "twin", "b"), ("b", "twin", "a"), ("b", "twin", "c")]
    other = [("c", "up", "a"), ("c", "never", "a")]
    data = graph_from_triples("g", {"train": one, "valid": other, "test": other})
    scores = dict(zip(data.relations, hierarchy(data).tolist(), strict=True))
    assert scores["up"] == 1.0 and scores["twin"] == 2 / 4 and scores["never"] != scores["never"]
