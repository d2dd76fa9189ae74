"""Finished runs loaded again: what they say of the test set scores as the run did, and names are those of the data."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import tasks
from tasks.cli import main
from tasks.errors import RunError, UsageError
from tasks.predictions import _table

from .text.conftest import write_toy

FAST: dict[str, Any] = {"max_steps": 40, "eval_steps": 20, "batch_size": 16, "lr": 1e-2}


def lines_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def family(folder: Path) -> Path:
    """A chain of people, each the parent of the next; the last links are held out."""
    folder.mkdir(parents=True)
    people = [f"p{i}" for i in range(30)]
    rows = [f"{a}\tparent of\t{b}\n{b}\tchild of\t{a}\n" for a, b in itertools.pairwise(people)]
    for split, part in (("train", rows[:23]), ("valid", rows[23:26]), ("test", rows[26:])):
        (folder / f"{split}.txt").write_text("".join(part), encoding="utf-8")
    return folder


@pytest.fixture
def kg(tmp_path: Path) -> tasks.Result:
    options: dict[str, Any] = {"model": {"dim": 8}, "negatives": {"count": 10}}
    train = {"epochs": 4, "batch_size": 16, "eval_every": 2}
    return tasks.run("kg", data=family(tmp_path / "family"), out=tmp_path / "kg", quiet=True, train=train, **options)


@pytest.mark.parametrize(
    ("model", "tuning"), [("bert", "full"), ("lorentz", "head"), ("twin", "delta"), ("tfidf", None), ("majority", None)]
)
def test_texts_score_as_they_did_in_the_run(
    model: str, tuning: str | None, tmp_path: Path, backbones: dict[str, str]
) -> None:
    toy = write_toy(tmp_path / "toy")
    options: dict[str, Any] = {"model": {"name": backbones.get(model, model)}, "max_length": 16}
    if tuning is not None:
        options |= {"train": FAST, "head_lr": 3e-2}
        options |= {"delta": {"name": "LoRA"}} if tuning == "delta" else {"tuning": tuning}
    result = tasks.run("text", data=toy, out=tmp_path / "run", quiet=True, **options)
    before = torch.get_rng_state()
    trained = tasks.load(result.folder)
    assert torch.equal(torch.get_rng_state(), before) and not trained.model.training
    rows = lines_of(toy / "test.tsv")
    found = trained.predict([row[0] for row in rows])
    assert [answer["text"] for answer in found] == [row[0] for row in rows]
    right = np.mean([answer["label"] == row[1] for answer, row in zip(found, rows, strict=True)])
    assert right == pytest.approx(result.metrics["test"]["accuracy"])
    wanted = trained.task.predict(trained.model, trained.data, "test").double().softmax(1).max(1).values
    assert [answer["probability"] for answer in found] == pytest.approx(wanted.tolist(), rel=1e-4)
    with pytest.raises(UsageError, match=r"row 2: expected one text, got 'a\\tb'"):
        trained.predict(["a", "a\tb"])


def test_pairs_with_numbers(tmp_path: Path, backbones: dict[str, str]) -> None:
    from scipy.stats import pearsonr

    toy = write_toy(tmp_path / "toy", pairs=True)
    options: dict[str, Any] = {"model": {"name": backbones["bert"]}, "max_length": 16, "train": FAST}
    result = tasks.run("text", data=toy, out=tmp_path / "run", quiet=True, **options)
    rows = lines_of(toy / "test.tsv")
    trained = tasks.load(result.folder)
    found = trained.predict([tuple(row[:2]) for row in rows])
    wanted = trained.task.predict(trained.model, trained.data, "test")[:, 0].tolist()
    assert [row["number"] for row in found] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert pearsonr([a["number"] for a in found], [float(row[2]) for row in rows]).statistic == pytest.approx(
        result.metrics["test"]["pearson"], abs=1e-6
    )


def test_triples_rank_as_the_model_scores_them(kg: tasks.Result) -> None:
    trained = tasks.load(kg.folder)
    data, model = trained.data, trained.model
    entity, relation = data.entities.index, data.relations.index
    found = trained.predict(["p3\tparent of\t?", ("?", "parent of", "p3"), ("p3", "?", "p4")], top=4)
    assert [row["rank"] for row in found] == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    with torch.no_grad():
        forward = model.score_tails(torch.tensor([entity("p3")]), torch.tensor([relation("parent of")]))[0]
        inverse = torch.tensor([relation("parent of") + data.num_relations])
        backward = model.score_tails(torch.tensor([entity("p3")]), inverse)[0]
    for part, scores, key in ((found[:4], forward, "tail"), (found[4:8], backward, "head")):
        order = scores.argsort(descending=True)[:4].tolist()
        assert [row[key] for row in part] == [data.entities[i] for i in order]
        assert [row["score"] for row in part] == pytest.approx(scores[order].tolist())
    whole = trained.predict([(row["head"], row["relation"], row["tail"]) for row in found[:4]])
    assert [row["score"] for row in whole] == pytest.approx([row["score"] for row in found[:4]], abs=1e-4)
    ids = torch.arange(data.num_relations)
    head, tail = (torch.full_like(ids, entity(name)) for name in ("p3", "p4"))
    with torch.no_grad():  # as relations are ranked in evaluation
        both = model.score(head, ids, tail) + model.score(tail, ids + data.num_relations, head)
    assert {row["relation"]: row["score"] for row in found[8:]} == pytest.approx(
        dict(zip(data.relations, (both / 2).tolist(), strict=True)), abs=1e-4
    )
    assert {row["rank"] for row in whole} == {None}
    everything = trained.predict(["p3\tparent of\t?"], top=1000)
    assert len(everything) == 30 and [row["tail"] for row in everything if row["known"]] == ["p4"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p3\tparent of", "row 2: expected head, relation and tail"),
        ("?\tparent of\t?", "row 2: expected at most one"),
        ("p3\tparents of\t?", "row 2: 'parents of' is no relation of the 2 .* Did you mean 'parent of'"),
        ("P3\tparent of\t?", "row 2: 'P3' is no entity of the 30 .* Did you mean 'p3'"),
        ("\tparent of\t?", "row 2: expected head"),
    ],
)
def test_a_question_that_is_none_is_named(row: str, message: str, kg: tasks.Result) -> None:
    with pytest.raises(UsageError, match=message):
        tasks.load(kg.folder).predict(["p1\tparent of\t?", row])


@pytest.mark.parametrize("problem", ["lp", "nc"])
def test_nodes_go_by_their_names_and_score_as_in_the_run(problem: str, tmp_path: Path) -> None:
    folder = tmp_path / "ring"
    folder.mkdir()
    names = [f"n{i}" for i in range(40)]
    edges = sorted((i, (i + step) % 40) for i in range(40) for step in (1, 2, 3))
    (folder / "edges.csv").write_text("".join(f"{names[a]},{names[b]}\n" for a, b in edges))
    order = list(dict.fromkeys(name for a, b in edges for name in (names[a], names[b])))
    labels = np.array([int(name[1:]) // 20 for name in order])
    np.save(folder / "labels.npy", labels)
    model = {"encoder": "lorentz_gcn", "dim": 5, "layers": 1}
    train = {"epochs": 10, "eval_every": 5}
    result = tasks.run(
        "graph", data=folder, problem=problem, model=model, train=train, out=tmp_path / "run", quiet=True
    )
    trained = tasks.load(result.folder)
    made = trained.task.prepare(trained.data)
    if problem == "lp":
        pairs = made.pairs["test"].T.tolist()
        found = trained.predict([(order[a], order[b]) for a, b in pairs])
        truth = [row["known"] for row in found]
        assert sum(truth) == len(truth) / 2
        assert roc_auc_score(truth, [row["score"] for row in found]) == pytest.approx(result.metrics["test"]["roc_auc"])
    else:
        nodes = made.nodes["test"].tolist()
        found = trained.predict([order[i] for i in nodes])
        right = np.mean([row["label"] == labels[i] for row, i in zip(found, nodes, strict=True)])
        assert right == pytest.approx(result.metrics["test"]["accuracy"])
    row = ["n3\tn4", "n3\tm4"] if problem == "lp" else ["n3", "m4"]
    with pytest.raises(UsageError, match="row 2: 'm4' is no node of the 40"):
        trained.predict(row)
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    (numbered / "edges.csv").write_text("".join(f"{a},{b}\n" for a, b in edges))
    np.save(numbered / "labels.npy", np.arange(40) // 20)
    result = tasks.run(
        "graph", data=numbered, problem=problem, model=model, train=train, out=tmp_path / "n", quiet=True
    )
    trained = tasks.load(result.folder)
    words = ["3\t4", "39\t5"] if problem == "lp" else ["3", "39"]
    values = [(3, 4), (np.int64(39), 5)] if problem == "lp" else [3, np.int64(39)]
    assert trained.predict(words) == trained.predict(values)


def test_the_command_writes_what_python_returns(
    kg: tasks.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("p3\tparent of\t?\r\n?\tchild of\tp9\r\n", encoding="utf-8")
    found = tasks.load(kg.folder).predict(["p3\tparent of\t?", "?\tchild of\tp9"], top=3)
    assert main(["predict", str(kg.folder), str(rows), "--top", "3"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out), delimiter="\t"))
    assert [row["tail"] for row in table] == [row["tail"] for row in found]
    assert [float(row["score"]) for row in table] == pytest.approx([row["score"] for row in found], rel=1e-5)
    assert [row["known"] for row in table] == ["yes" if row["known"] else "no" for row in found]
    out = tmp_path / "answers.jsonl"
    assert main(["predict", str(kg.folder), str(rows), "--top", "3", "--format", "jsonl", "--out", str(out)]) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == found
    assert "6 answers to 2 rows" in capsys.readouterr().out
    link = tmp_path / "link.jsonl"
    link.symlink_to(out)
    rows.write_text(rows.read_text() + "\n\n", encoding="utf-8")  # empty lines at the end
    assert main(["predict", str(kg.folder), str(rows), "--format", "jsonl", "--out", str(link)]) == 0
    assert link.is_symlink() and len(out.read_text().splitlines()) == 20
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert main(["predict", str(kg.folder), str(rows), "--top", "1", "--out", str(pipe)]) == 0
    assert os.read(reader, 1 << 16).startswith(b"head\trelation") and not pipe.is_file()
    os.close(reader)
    capsys.readouterr()

    class Stream:
        buffer = io.BytesIO(b"p3\tparent of\tp4\n")

    monkeypatch.setattr("sys.stdin", Stream())
    assert main(["predict", str(kg.folder)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("p3\tparent of\tp4\t\t")


def test_what_cannot_be_loaded_says_why(kg: tasks.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*words: str) -> str:
        assert main(["predict", *words]) == 2
        return capsys.readouterr().err

    (tmp_path / "empty").write_text("\n")
    (tmp_path / "rows").write_text("p3\tparent of\t?\n")
    assert "no run folder" in fails(str(tmp_path), str(tmp_path / "rows"))
    assert "there is no folder" in fails(str(kg.folder), str(tmp_path / "rows"), "--out", str(tmp_path / "no" / "x"))
    for top in (0, 2.5, True):
        with pytest.raises(UsageError, match="top is a whole number from 1"):
            tasks.load(kg.folder).predict(["p3\tparent of\t?"], top=top)
    assert "holds no row" in fails(str(kg.folder), str(tmp_path / "empty"))
    assert "No such file" in fails(str(kg.folder), str(tmp_path / "none"))
    weights = kg.folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(RunError, match="damaged"):
        tasks.load(kg.folder)
    weights.write_bytes(whole)
    text = (kg.folder / "config.yaml").read_text()
    (kg.folder / "config.yaml").write_text(text.replace("dim: 8", "dim: 10"))
    with pytest.raises(UsageError, match="changed since the run finished"):
        tasks.load(kg.folder)
    (kg.folder / "config.yaml").write_text(text)
    with (tmp_path / "family" / "train.txt").open("a") as file:
        file.write("p1\tparent of\tp9\n")
    with pytest.raises(UsageError, match=r"the data of family changed since .* was trained"):
        tasks.load(kg.folder)
    (kg.folder / "result.json").unlink()
    with pytest.raises(UsageError, match="hyrel resume"):
        tasks.load(kg.folder)


def test_data_that_moved_is_named_anew(kg: tasks.Result, tmp_path: Path) -> None:
    (tmp_path / "family").rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="family"):
        tasks.load(kg.folder)
    assert tasks.load(kg.folder, data=tmp_path / "moved").predict(["p3\tparent of\t?"], top=1)
    with (tmp_path / "moved" / "valid.txt").open("a") as file:
        file.write("p1\tparent of\tp9\n")
    with pytest.raises(UsageError, match="changed since"):
        tasks.load(kg.folder, data=tmp_path / "moved")


def test_cells_of_a_table_stay_cells() -> None:
    assert _table([{"a": "x\ty\r\nz", "b": None, "c": True}]) == "a\tb\tc\nx y  z\t\tyes\n"


def test_a_task_without_questions_says_which_have_some(tmp_path: Path) -> None:
    edges = tmp_path / "tree.tsv"
    edges.write_text("".join(f"n{i}\tn{(i - 1) // 2}\n" for i in range(1, 40)))
    train = {"epochs": 1, "eval_every": 1}
    result = tasks.run("hierarchy", data=f"{edges}", out=tmp_path / "run", quiet=True, train=train, model={"dim": 3})
    trained = tasks.load(result.folder)
    assert sum(p.numel() for p in trained.model.parameters()) == trained.values["params"]["total"]
    with pytest.raises(UsageError, match="task that predicts 'hierarchy'"):
        trained.predict(["n3"])
