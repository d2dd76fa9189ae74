"""Training: what is learned, what is frozen, kept and drawn, and that a stopped run goes on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tasks
from tasks.api import configure, recipes
from tasks.cli import main
from tasks.data.load import load
from tasks.errors import RunError, UsageError
from tasks.runner import _Run
from tasks.text.backbone import load_tokenizer
from tasks.text.model import TextModel
from tasks.text.rows import stratified
from tasks.text.task import TextTask
from tasks.text.tokens import tokenize

from ..conftest import WORDS, save_tokenizer

TRAIN = {"epochs": 6, "batch_size": 16, "lr": 2e-3, "eval_every": 2}


def start(toy: Path, runs: Path, backbone: str, **options: Any) -> tasks.Result:
    options = {"train": TRAIN, "head_lr": 1e-2, "max_length": 16, **options}
    model = {"name": backbone, **options.pop("model", {})}
    return tasks.run("text", data=str(toy), runs=runs, quiet=True, model=model, **options)


def prepared(toy: Path, backbone: str, **overrides: Any) -> tuple[TextTask, Any, TextModel]:
    overrides = {"max_length": 16, "model": {"name": backbone, "dropout": 0.0}, **overrides}
    config = configure("text", overrides={"data": str(toy), **overrides})
    task, data = TextTask(config), load(str(toy), kind="text")
    torch.manual_seed(0)
    model = task.build(config, data)
    assert isinstance(model, TextModel)
    return task, data, model


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_another_backbone_of_the_same_name_is_noticed(
    file: str, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    backbone = tmp_path / "backbone"
    shutil.copytree(backbones["bert"], backbone)
    first = start(toy, tmp_path / "runs", str(backbone), tuning="head")
    assert start(toy, tmp_path / "runs", str(backbone), tuning="head").values == first.values
    if file == "model.safetensors":
        weights = load_file(backbone / file)
        weights["embeddings.word_embeddings.weight"] += 0.5
        save_file(weights, backbone / file, metadata={"format": "pt"})
    else:
        save_tokenizer(backbone, [*WORDS[:-1], "other"])
    with pytest.raises(UsageError, match=r"the backbone .* has changed since"):
        start(toy, tmp_path / "runs", str(backbone), tuning="head")
    shutil.rmtree(backbone)  # what is gone says nothing: the result of the finished run is still there
    assert tasks.resume(first.folder, quiet=True).values == first.values


@pytest.mark.parametrize("kind", ["bert", "lorentz", "twin"])
def test_a_tiny_backbone_learns_a_separable_set(
    kind: str, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    result = start(toy, tmp_path / "runs", backbones[kind])
    assert result.metrics["test"]["accuracy"] > 0.95
    assert result.metrics["test"]["f1"] > 0.95 and result.metrics["test"]["mcc"] > 0.9
    assert (result.values["manifold"] is not None) == (kind == "lorentz")
    assert kind != "lorentz" or result.values["manifold"]["residual"] < 1e-5
    assert result.values["params"]["total"] == result.values["params"]["trainable"]


@pytest.mark.parametrize("kind", ["bert", "lorentz", "twin"])
def test_numbers_of_pairs_are_learned(kind: str, toy_pairs: Path, tmp_path: Path, backbones: dict[str, str]) -> None:
    result = start(toy_pairs, tmp_path / "runs", backbones[kind], model={"dropout": 0.0})
    assert list(result.metrics["test"]) == ["spearman", "pearson"]
    assert kind != "lorentz" or result.values["manifold"]["residual"] < 1e-5
    assert result.metrics["test"]["pearson"] > 0.8
    model = load_file(result.folder / "model.safetensors")
    labels = [float(line.split("\t")[2]) for line in (toy_pairs / "train.tsv").read_text().split("\n")[:-1]]
    assert float(model["head.mean"]) == pytest.approx(np.mean(labels)) and float(model["head.scale"]) == pytest.approx(
        np.std(labels)
    )


@pytest.mark.parametrize(("kind", "tuning"), [("bert", "full"), ("lorentz", "full"), ("bert", "head")])
def test_a_stopped_run_goes_on_to_the_same_weights(
    kind: str, tuning: str, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    options = {"tuning": tuning, "train": {**TRAIN, "epochs": 2, "eval_every": 1}}
    whole = start(toy, tmp_path / "a", backbones[kind], **options)
    update = _Run.update

    def stop(self: _Run) -> None:
        if self.steps == 13:
            self.checkpoint()
            raise KeyboardInterrupt
        update(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Run, "update", stop)
        start(toy, tmp_path / "b", backbones[kind], **options)
    (unfinished,) = (tmp_path / "b").glob("*/seed0")
    resumed = tasks.resume(unfinished, quiet=True)
    assert resumed.metrics == whole.metrics
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


@pytest.mark.parametrize("kind", ["bert", "lorentz"])
def test_head_only_equals_training_with_a_frozen_backbone(kind: str, toy: Path, backbones: dict[str, str]) -> None:
    task, data, model = prepared(toy, backbones[kind], tuning="head", train=TRAIN)
    other = prepared(toy, backbones[kind], tuning="full", train=TRAIN)
    other[2].load_state_dict(model.state_dict(), strict=False)
    other[2].backbone.requires_grad_(False).eval()
    for t, m in ((task, model), (other[0], other[2])):
        m.train()
        m.backbone.eval()
        optimizer = torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-2)
        for index in range(t.n_batches(data)):
            optimizer.zero_grad()
            t.step(m, t.train_batch(data, 0, index, 5))[0].backward()
            optimizer.step()
    for (name, left), (_, right) in zip(model.head.named_parameters(), other[2].head.named_parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5, msg=name)
    left, right = (t.predict(m.eval(), data, "test") for t, m in ((task, model), (other[0], other[2])))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def test_a_frozen_backbone_stays_in_evaluation_mode_and_out_of_the_checkpoints(
    toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    model = prepared(toy, backbones["bert"], tuning="head")[2].train()
    assert model.head.training and not any(m.training for m in model.backbone.modules())
    result = start(toy, tmp_path / "runs", backbones["bert"], tuning="head", train={**TRAIN, "epochs": 2})
    saved = load_file(result.folder / "model.safetensors")
    assert set(saved) == {"head.mean", "head.scale", "head.linear.weight", "head.linear.bias", "backbone_sha256"}
    assert result.values["params"]["trainable"] == 2 * 32 + 2 < result.values["params"]["total"]
    drawn = start(
        toy, tmp_path / "runs", backbones["bert"], tuning="head", model={"random": True}, train={**TRAIN, "epochs": 2}
    )
    assert any(name.startswith("backbone.") for name in load_file(drawn.folder / "model.safetensors"))


@pytest.mark.parametrize("noted", [True, False])
def test_another_backbone_in_the_same_folder_is_refused(
    noted: bool, toy: Path, tmp_path: Path, backbones: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the files that were read, before anything is loaded; where those were not noted, by the weights themselves."""
    if not noted:
        monkeypatch.setattr(TextTask, "sources", lambda self: {})
    folder = shutil.copytree(backbones["bert"], tmp_path / "backbone")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Run, "result", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        start(toy, tmp_path / "runs", str(folder), tuning="head", train={**TRAIN, "epochs": 1})
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (unfinished,) = (tmp_path / "runs").glob("*/seed0")
    refusal = r"the backbone .* has changed since" if noted else "the backbone is not the one that it was trained with"
    with pytest.raises(UsageError if noted else RunError, match=refusal):
        tasks.resume(unfinished, quiet=True)


def test_random_weights_are_drawn_by_the_seed(toy: Path, backbones: dict[str, str]) -> None:
    model = {"name": backbones["bert"], "random": True}
    first, second = (prepared(toy, "", model=model)[2].backbone.state_dict() for _ in range(2))
    pretrained = prepared(toy, backbones["bert"])[2].backbone.state_dict()
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(first[name], second[name]) and not torch.allclose(first[name], pretrained[name])
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in pretrained.items()}


# Rows


def test_few_shot_takes_so_many_of_each_class_by_the_seed(
    toy: Path, toy_pairs: Path, backbones: dict[str, str]
) -> None:
    made = {seed: prepared(toy, backbones["bert"], shots=5, seed=seed) for seed in (0, 1)}
    rows = {seed: task.rows(data, "train") for seed, (task, data, _) in made.items()}
    task, data, _ = made[0]
    assert Counter(task.labels(data, "train").tolist()) == {0: 5, 1: 5} and len(set(rows[0])) == 10
    assert list(rows[0]) != list(rows[1]) and list(rows[0]) == list(TextTask(task.config).rows(data, "train"))
    assert len(task.rows(data, "valid")) == 40 and data.split == "own; 5 training rows a class"
    numbers, pairs, _ = prepared(toy_pairs, backbones["bert"], shots=3)
    order = np.argsort(pairs.label["train"].numpy(), kind="stable")
    fifths = {row: place * 5 // len(order) for place, row in enumerate(order)}
    assert Counter(fifths[row] for row in numbers.rows(pairs, "train")) == dict.fromkeys(range(5), 3)


def test_a_class_with_fewer_rows_is_named(toy: Path, backbones: dict[str, str]) -> None:
    task, data, _ = prepared(toy, backbones["bert"], shots=81)
    assert len(task.rows(data, "train")) == 160
    assert data.warnings[-1] == "fewer than 81 training rows have the label neg (80), pos (80)"


def test_a_cap_keeps_the_classes_in_proportion(toy: Path, backbones: dict[str, str]) -> None:
    groups = [np.arange(0, 70), np.arange(70, 95), np.arange(95, 100)]
    drawn = stratified(groups, 10, np.random.default_rng(0))
    assert [sum(np.isin(drawn, group)) for group in groups] == [7, 2, 1] or len(drawn) == 10
    # exact shares 7, 2.5 and 0.5: the largest remainders go first
    assert len(drawn) == len(set(drawn)) == 10 and sum(np.isin(drawn, groups[0])) == 7
    task, data, _ = prepared(toy, backbones["bert"], max_train=50, max_eval=20, seed=3)
    again, other, _ = prepared(toy, backbones["bert"], max_train=50, max_eval=20, seed=4)
    assert Counter(task.labels(data, "train").tolist()) == {0: 25, 1: 25}
    assert list(task.rows(data, "train")) != list(again.rows(other, "train"))
    assert list(task.rows(data, "test")) == list(again.rows(other, "test")) and len(task.rows(data, "valid")) == 20


# Batches


def test_batches_are_a_function_of_seed_and_epoch_and_cover_the_rows_once(toy: Path, backbones: dict[str, str]) -> None:
    task, data, _ = prepared(toy, backbones["bert"], train={"batch_size": 48})
    assert task.n_batches(data) == 4
    batches = [task.train_batch(data, 1, index, 7) for index in range(4)]
    assert [len(batch["label"]) for batch in batches] == [48, 48, 48, 16]
    again = TextTask(task.config).train_batch(data, 1, 2, 7)
    assert all(torch.equal(again[name], batches[2][name]) for name in again)
    assert not torch.equal(task.train_batch(data, 2, 0, 7)["label"], batches[0]["label"])
    decode = load_tokenizer(backbones["bert"]).batch_decode
    texts = [text for batch in batches for text in decode(batch["input_ids"], skip_special_tokens=True)]
    assert Counter(texts) == Counter(data.first["train"])
    assert all(int(batch["attention_mask"].sum(1).max()) == batch["input_ids"].shape[1] for batch in batches)


def test_tokens_equal_those_of_the_tokenizer(backbones: dict[str, str]) -> None:
    tokenizer = load_tokenizer(backbones["bert"])
    first, second = ["the film is good", "it", "a plot and a story"], ["bad", "the cast was dull and poor", "fun"]
    tokens = tokenize(tokenizer, first, second, max_length=9)
    options = {"padding": True, "truncation": True, "max_length": 9, "return_token_type_ids": True}
    want = tokenizer([first[2], first[0]], [second[2], second[0]], return_tensors="pt", **options)
    found = tokens.batch(np.array([2, 0]))
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(found[name], want[name])
    assert torch.equal(
        found["token_type_ids"] * want["attention_mask"], want["token_type_ids"] * want["attention_mask"]
    )
    assert len(tokens) == 3 and tokens.lengths.max() == 9


# The command line


def test_steps_replace_epochs_and_evaluations_follow(toy: Path, tmp_path: Path, backbones: dict[str, str]) -> None:
    train = {"batch_size": 32, "epochs": 1, "max_steps": 12, "eval_steps": 5}
    result = start(toy, tmp_path / "runs", backbones["bert"], train=train)
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["epoch"]) for row in rows] == [(5, 1), (10, 2), (12, 2)]
    short = start(toy, tmp_path / "runs", backbones["bert"], train={"batch_size": 32, "max_steps": 3})
    rows = [json.loads(line) for line in (short.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3]


def test_the_command_line_runs_seeds_and_compares(
    toy: Path, tmp_path: Path, backbones: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "text", "--data", str(toy), "--model", backbones["lorentz"], "--max-length", "16", "--quiet"]
    words += ["--train.epochs", "1", "--runs", str(tmp_path / "runs")]
    assert main([*words, "--seeds", "0,1"]) == 0
    assert (
        main(["run", "text", "--data", str(toy), "--model", "majority", "--quiet", "--runs", str(tmp_path / "runs")])
        == 0
    )
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "runs"), "--by", "model.name,delta", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 3 and lines[0].startswith("model.name,delta,config,n,accuracy")


def test_a_graph_of_triples_is_still_one_for_its_own_task(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.tsv").write_text("a\tlikes\tb\n")
    assert load(str(tmp_path)).relations == ["likes"]
    assert load(str(tmp_path), kind="text").labels == ["b"]
    with pytest.raises(
        UsageError, match=r"taxonomy is no set of texts, which the task text takes: --data SST-2, SST-5"
    ):
        tasks.run("text", data="taxonomy", runs=tmp_path / "runs", quiet=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": {"name": "minlm"}},
            r"--model.name minlm: there is no such folder.*nothing is downloaded\). Did you mean 'minilm'",
        ),
        ({"model": {"name": "a/b/c"}}, r"--model.name a/b/c: there is no such folder"),
        ({"model": {"name": "FOLDER"}}, r"the folder holds no config.json"),
        ({"max_length": 40}, r"--max_length 40: .*bert has positions for 32 tokens"),
        ({"monitor": "pearson"}, r"--monitor pearson: toy is a classification. Known: accuracy, f1, mcc"),
        ({"shots": 2, "max_train": 4}, r"--shots and --max_train both say"),
        ({"tuning": "delta"}, r"--tuning delta with no --delta"),
        ({"delta": {"rank": 8}}, r"--delta.rank is given and no --delta to which it belongs"),
        ({"model": {"name": "tfidf"}, "tuning": "head"}, r"tfidf is a baseline without a backbone"),
        ({"model": {"pooling": "max"}}, r"unknown pooling 'max'"),
    ],
)
def test_what_is_wrong_is_said(
    options: dict[str, Any], message: str, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    model = {"name": backbones["bert"], **options.pop("model", {})}
    model["name"] = str(toy) if model["name"] == "FOLDER" else model["name"]
    with pytest.raises(UsageError, match=message):
        start(toy, tmp_path / "runs", backbones["bert"], model=model, **options)
    assert not (tmp_path / "runs").exists()


def test_a_model_without_all_its_weights_or_tokenizer_is_refused(
    toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    import shutil

    folder = shutil.copytree(backbones["bert"], tmp_path / "backbone")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UsageError, match="no tokenizer there"):
        start(toy, tmp_path / "runs", str(folder))
    save_tokenizer(folder, [*WORDS[:4], *(f"filler {i}" for i in range(40)), *WORDS[4:]])
    with pytest.raises(
        UsageError, match=r"gives the id 6\d and the model knows 22 tokens; they do not belong together"
    ):
        start(toy, tmp_path / "runs", str(folder))
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if "layer.1." in name]:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"its weights lack 16 tensors of the architecture, such as encoder.layer.1"):
        start(toy, tmp_path / "runs", str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="transformers cannot load it"):
        start(toy, tmp_path / "runs", str(folder))


def test_a_folder_as_pretraining_leaves_it_is_a_backbone(toy_pairs: Path, tmp_path: Path) -> None:
    from lorentz.hf import LorentzConfig, LorentzForMaskedLM
    from tasks.pretrain.tokenizer import learn_tokenizer

    lines = (toy_pairs / "train.tsv").read_text().split("\n")
    tokenizer = learn_tokenizer(lines, vocabulary=300)
    shape = {"hidden_size": 17, "num_hidden_layers": 1, "type_vocab_size": 0, "vocab_size": len(tokenizer)}
    LorentzForMaskedLM(LorentzConfig(**shape)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    train = {"max_steps": 2, "batch_size": 8, "eval_steps": 2}
    result = start(toy_pairs, tmp_path / "runs", str(tmp_path / "model"), train=train, max_length=32)
    assert result.values["manifold"]["residual"] < 1e-5 and result.metrics["test"]["pearson"] != 0


def test_the_encoders_of_the_package_are_known_by_name(
    backbones: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.text import backbone

    monkeypatch.setattr(
        backbone, "packaged", lambda name: Path(backbones["lorentz"]) if name == "lorentz-small" else Path("/none")
    )
    assert backbone.source_of("lorentz-small") == backbones["lorentz"]
    with pytest.raises(UsageError, match=r"euclidean-small: this installation of hyrel lacks it; /none/config.json"):
        backbone.source_of("euclidean-small")


@pytest.mark.parametrize("recipe", [name for name in recipes() if name.startswith("text/")])
def test_recipes_train_a_few_steps(recipe: str, data_dir: Path, tmp_path: Path, backbones: dict[str, str]) -> None:
    config = configure("text", recipe=recipe)
    name = config.model.name if config.model.name in ("minilm", "tfidf") else backbones["lorentz"]
    options = {
        "max_length": 16,
        "max_train": 32,
        "max_eval": 16,
        "train": {"max_steps": 2, "eval_steps": 1, "batch_size": 4},
    }
    result = tasks.run(
        "text", recipe=recipe, runs=tmp_path, quiet=True, data_dir=data_dir, model={"name": name}, **options
    )
    assert len((result.folder / "metrics.jsonl").read_text().splitlines()) == (1 if name == "tfidf" else 2)
    assert set(result.metrics["test"]) in ({"accuracy", "f1", "mcc"}, {"pearson", "spearman"})


def test_head_parameters_have_their_own_rate_and_vectors_no_decay(toy: Path, backbones: dict[str, str]) -> None:
    task, _, model = prepared(toy, backbones["lorentz"], head_lr=0.5)
    groups = task.param_groups(model)
    names = {id(p): name for name, p in model.named_parameters()}
    listed = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(names.values())
    for group in groups:
        head = {names[id(p)].startswith("head.") for p in group["params"]}
        assert head == {group.get("lr") == 0.5}
        assert ("weight_decay" in group) == all(p.ndim < 2 or hasattr(p, "manifold") for p in group["params"])
    plain = TextTask(configure("text", overrides={"head_lr": None}))
    assert all("lr" not in group for group in plain.param_groups(model))
    assert isinstance(model.head, nn.Module)
