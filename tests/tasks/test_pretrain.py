"""Masked language modelling: the corpus, the vocabulary, the masks, runs from end to end, and the shipped pair."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

import tasks
from lorentz.hf import LorentzForMaskedLM
from tasks.api import configure, recipes
from tasks.backbones import BACKBONES, path
from tasks.config import to_dict
from tasks.data.corpus import corpus_from_text, own_corpus
from tasks.data.load import load
from tasks.errors import UsageError
from tasks.pretrain.card import card, ship
from tasks.pretrain.masking import IGNORED, mask_tokens, pack
from tasks.pretrain.task import Pretraining
from tasks.pretrain.tokenizer import SPECIAL, learn_tokenizer

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "The", "dog", "ran", "to", "it")
SMALL: dict[str, Any] = {
    "model": {"hidden_size": 17, "layers": 1, "heads": 2},
    "text": {"vocabulary": 300, "length": 16, "valid_sequences": 4},
    "train": {"epochs": 2, "batch_size": 4, "eval_every": 1, "warmup": 0},
    "epoch_steps": 3,
}


def paragraphs(count: int, seed: int) -> list[str]:
    g = torch.Generator().manual_seed(seed)
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (20,), generator=g)) + "." for _ in range(count)]


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    folder.mkdir()
    for seed, (split, count) in enumerate({"train": 40, "valid": 10, "test": 10}.items()):
        (folder / f"{split}.txt").write_text("\n\n".join(paragraphs(count, seed)) + "\n")
    return folder


def small(books: Path, **changes: Any) -> tuple[Pretraining, Any]:
    merged = {key: {**value, **changes.pop(key, {})} for key, value in SMALL.items() if isinstance(value, dict)}
    config = configure("pretrain", overrides={**SMALL, **merged, **changes, "data": str(books)})
    return Pretraining(config), own_corpus(books)


def test_a_corpus_is_its_paragraphs_and_a_missing_split_is_named(books: Path, tmp_path: Path) -> None:
    corpus = own_corpus(books)
    assert corpus.paragraphs["train"] == paragraphs(40, 0) and corpus.split == "own" and corpus.name == "books"
    changed = corpus_from_text("books", {s: "\n".join(lines) for s, lines in corpus.paragraphs.items()})
    assert changed.sha256 == corpus.sha256  # empty lines mean nothing
    with pytest.raises(UsageError, match=r"holds no train.txt"):
        own_corpus(tmp_path)
    with pytest.raises(UsageError, match="the test split of x holds no text"):
        corpus_from_text("x", {"train": "a", "valid": "b", "test": " \n"})


def test_the_vocabulary_writes_every_text_and_is_the_same_each_time(tmp_path: Path) -> None:
    text = paragraphs(50, 0)
    tokenizer, again = (learn_tokenizer(text, vocabulary=320) for _ in range(2))
    assert tokenizer.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3, 4] and len(tokenizer) <= 320
    found = tokenizer("the naïve ☃ CAT")["input_ids"]
    assert found[0] == 1 and found[-1] == 2 and tokenizer.unk_token_id not in found
    assert tokenizer.decode(found, skip_special_tokens=True).strip() == "the naïve ☃ cat"
    assert tokenizer.tokenize("the cat") == ["Ġthe", "Ġcat"]  # merges were learned
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("the cat")["input_ids"] == tokenizer("the cat")["input_ids"] and loaded.mask_token_id == 3
    for made in (tokenizer, loaded):  # a mask takes the space before it with it
        ids = made("the [MASK] cat", add_special_tokens=False)["input_ids"]
        assert ids == made.convert_tokens_to_ids(["Ġthe", "[MASK]", "Ġcat"])
    cased = learn_tokenizer(text, vocabulary=320, lowercase=False)
    assert cased("The")["input_ids"] != cased("the")["input_ids"] and tokenizer("The")["input_ids"] == [*found[:2], 2]


def test_sequences_hold_the_text_as_one_stream() -> None:
    text = paragraphs(30, 1)
    tokenizer = learn_tokenizer(text, vocabulary=300)
    rows = pack(tokenizer, text, 16)
    stream = [i for line in text for i in [*tokenizer(line, add_special_tokens=False)["input_ids"], 2]]
    assert bool((rows[:, 0] == 1).all())
    assert rows[:, 1:].flatten().tolist() == stream[: len(rows) * 15] and len(stream) - len(rows) * 15 < 15


def test_masks_follow_the_rule_of_bert() -> None:
    ids = torch.randint(0, 200, (400, 100), generator=torch.Generator().manual_seed(0))
    inputs, labels = mask_tokens(ids, share=0.15, vocabulary=200, generator=torch.Generator().manual_seed(1))
    chosen, ordinary = labels != IGNORED, ids >= len(SPECIAL)
    assert not bool((chosen & ~ordinary).any()) and bool((labels[chosen] == ids[chosen]).all())
    assert bool((inputs[~chosen] == ids[~chosen]).all())
    count = int(chosen.sum())

    def near(share: float, expected: float, n: int) -> bool:  # within five standard deviations
        return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)

    assert near(count / int(ordinary.sum()), 0.15, int(ordinary.sum()))
    masked = float((inputs[chosen] == 3).double().mean())
    kept = float((inputs[chosen] == ids[chosen]).double().mean())
    assert near(masked, 0.8, count) and near(kept, 0.1 + 0.1 / 195, count)
    assert bool((inputs[chosen & (inputs != 3)] >= len(SPECIAL)).all())


def test_batches_are_functions_of_seed_and_place_and_masks_change_with_the_pass(books: Path) -> None:
    task, data = small(books)
    other, _ = small(books)
    one, two = task.train_batch(data, 1, 2, 7), other.train_batch(data, 1, 2, 7)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["input_ids"], task.train_batch(data, 1, 2, 8)["input_ids"])
    whole, _ = small(books, epoch_steps=None)
    count = whole.n_batches(data)
    assert count == len(whole.prepare(data)[1]["train"]) // 4

    def originals(epoch: int) -> tuple[list[list[int]], list[list[bool]]]:
        rows = []
        for index in range(count):
            batch = whole.train_batch(data, epoch, index, 0)
            labels = batch["labels"]
            rows += list(zip(batch["input_ids"].tolist(), (labels != IGNORED).tolist(), strict=True))
        return [r[0] for r in rows], [r[1] for r in rows]

    (_, first), (_, second) = originals(0), originals(1)
    assert len(first) == count * 4 and sorted(map(tuple, first)) != sorted(map(tuple, second))
    # epoch_steps goes on through the same order
    assert torch.equal(task.train_batch(data, 1, 0, 0)["labels"], whole.train_batch(data, 0, 3, 0)["labels"])


@pytest.mark.parametrize("geometry", ["lorentz", "euclidean"])
def test_the_loss_is_that_of_the_model_and_the_metrics_are_the_formula(books: Path, geometry: str) -> None:
    task, data = small(books, model={"geometry": geometry})
    torch.manual_seed(0)
    model = task.build(task.config, data).double().eval()
    batch = task.train_batch(data, 0, 0, 0)
    whole = model(batch["input_ids"], labels=batch["labels"])  # logits of every token
    assert torch.allclose(task.step(model, batch)[0].double(), whole.loss.double(), rtol=1e-5)
    with torch.no_grad():
        found = task.evaluate(model, data, "test")
        inputs, labels = task.held_out(data, "test")
        logits = model(inputs).logits[labels != IGNORED]
    target = labels[labels != IGNORED]
    assert found["cross_entropy"] == pytest.approx(float(F.cross_entropy(logits, target)), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["cross_entropy"]))
    assert found["accuracy"] == pytest.approx(float((logits.argmax(-1) == target).double().mean()))
    assert len(task.held_out(data, "valid")[0]) == 4


def test_held_out_masks_are_those_of_every_seed_and_geometry(books: Path) -> None:
    (one, data), (two, _) = small(books), small(books, model={"geometry": "euclidean"}, seed=5)
    for split in ("valid", "test"):
        assert all(torch.equal(a, b) for a, b in zip(one.held_out(data, split), two.held_out(data, split), strict=True))


def test_the_twins_have_equal_parameters_and_the_flat_limit_is_the_same_code() -> None:
    data = corpus_from_text("x", {split: "\n".join(paragraphs(30, 0)) for split in ("train", "valid", "test")})
    count = {}
    for geometry in ("lorentz", "euclidean"):
        task = Pretraining(configure("pretrain", overrides={"model": {"geometry": geometry}}))
        count[geometry] = sum(p.numel() for p in task.build(task.config, data).parameters())
    assert abs(count["lorentz"] / count["euclidean"] - 1) < 0.01


def test_points_of_tokens_and_vectors_are_not_decayed(books: Path) -> None:
    task, data = small(books)
    model = task.build(task.config, data)
    decayed, others = (list(group["params"]) for group in task.param_groups(model))
    assert {id(p) for p in decayed + others} == {id(p) for p in model.parameters()}
    assert len(decayed) + len(others) == len(list(model.parameters()))
    assert any(p is model.get_input_embeddings().weight for p in others) and all(p.ndim == 2 for p in decayed)


@pytest.mark.parametrize("geometry", ["lorentz", "euclidean"])
def test_a_run_leaves_a_model_that_loads_and_scores_as_the_result_says(
    books: Path, geometry: str, tmp_path: Path
) -> None:
    changes = {**SMALL, "model": {**SMALL["model"], "geometry": geometry}}
    result = tasks.run("pretrain", data=f"{books}/", out=tmp_path / "run", quiet=True, **changes)
    folder = tmp_path / "run" / "pretrained"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}
    assert not list((tmp_path / "run").glob(".tmp*"))
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    task, data = small(books, model={"geometry": geometry})
    with torch.no_grad():
        assert task.evaluate(model, data, "test") == pytest.approx(result.metrics["test"], rel=1e-6)
    assert AutoTokenizer.from_pretrained(folder)("the cat")["input_ids"][0] == 1
    assert type(AutoModel.from_pretrained(folder)).__name__ == "LorentzModel"


def test_a_stopped_run_goes_on_to_the_same_result(books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tasks.run("pretrain", data=f"{books}/", out=tmp_path / "whole", quiet=True, **SMALL)
    step, calls = Pretraining.step, 0

    def stopping(self: Pretraining, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return step(self, *given)

    monkeypatch.setattr(Pretraining, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        tasks.run("pretrain", data=f"{books}/", out=tmp_path / "cut", quiet=True, checkpoint_seconds=0.0, **SMALL)
    monkeypatch.setattr(Pretraining, "step", step)
    again = tasks.resume(tmp_path / "cut", quiet=True)
    assert again.metrics == whole.metrics
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert rows[0] == rows[1]


def test_a_shipped_model_is_half_as_large_and_loads_in_full_precision(books: Path, tmp_path: Path) -> None:
    result = tasks.run("pretrain", data=f"{books}/", out=tmp_path / "run", quiet=True, **SMALL)
    ship(tmp_path / "run" / "pretrained", tmp_path / "shipped")
    size = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("run/pretrained", "shipped")]
    model = LorentzForMaskedLM.from_pretrained(tmp_path / "shipped").eval()
    assert size[1] < 0.6 * size[0] and model.dtype == torch.float32
    task, data = small(books)
    with torch.no_grad():
        found = task.evaluate(model, data, "test")["cross_entropy"]
    assert found == pytest.approx(result.metrics["test"]["cross_entropy"], abs=0.01)
    assert AutoTokenizer.from_pretrained(tmp_path / "shipped").mask_token == "[MASK]"


@pytest.mark.parametrize("recipe", [name for name in recipes() if name.startswith("pretrain/")])
def test_every_recipe_runs_a_few_steps(recipe: str, books: Path, tmp_path: Path) -> None:
    small = {"train": {"epochs": 1, "batch_size": 2}, "epoch_steps": 2, "text": {"length": 16, "vocabulary": 300}}
    result = tasks.run("pretrain", recipe=recipe, data=f"{books}/", out=tmp_path / "run", quiet=True, **small)
    assert math.isfinite(result.metrics["test"]["cross_entropy"])


def test_the_recipes_of_the_pair_differ_in_geometry_and_rate_alone() -> None:
    pair = [to_dict(configure("pretrain", recipe=f"{g}-small")) for g in ("lorentz", "euclidean")]
    for config in pair:
        config["model"].pop("geometry")
        config["train"].pop("lr")
    assert pair[0] == pair[1]


def test_real_text_has_the_stated_size(data_dir: Path) -> None:
    corpus = load("pretraining-classics", data_dir)
    assert [len(corpus.paragraphs[split]) for split in ("train", "valid", "test")] == [69_301, 4_074, 3_854]
    assert not corpus.warnings


def test_the_card_holds_the_scores_of_both_and_the_licence() -> None:
    config = to_dict(configure("pretrain", recipe="lorentz-small"))
    metrics = {"cross_entropy": 4.25, "perplexity": 70.105, "accuracy": 0.25}
    results = {
        geometry: {"params": {"total": 1_000_000 + i}, "metrics": {"valid": metrics, "test": metrics}}
        for i, geometry in enumerate(("lorentz", "euclidean"))
    }
    text = card("lorentz-small", config, results, {"text": 6_000_000, "seen": 9_000_000})
    assert "| lorentz | 1,000,000 | 4.2500 | 70.1 | 0.2500 | 4.2500 |" in text and "| euclidean | 1,000,001 |" in text
    assert "9,000,000 tokens seen (1.50 passes)" in text and "Text: public domain." in text and "k = 1" in text


def test_a_backbone_of_another_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown backbone 'lorenz-small'\. Did you mean 'lorentz-small'"):
        path("lorenz-small")


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_small_and_predicts_held_out_words(name: str, data_dir: Path) -> None:
    folder = path(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8 * 2**20
    assert "## Licence" in (folder / "README.md").read_text()
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32 and model.config.geometry == name.partition("-")[0]
    ids = pack(tokenizer, load("pretraining-classics", data_dir).paragraphs["test"][:60], 128)
    inputs, labels = mask_tokens(ids, share=0.15, vocabulary=len(tokenizer), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = float(model(inputs, labels=labels).loss)
    target = labels[labels != IGNORED]
    frequency = torch.bincount(target, minlength=len(tokenizer)).double() + 1
    unigram = float(-(frequency / frequency.sum()).log()[target].mean())  # of these very tokens: better than any other
    assert found < unigram - 0.5
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.855e6, rel=0.01)


def test_a_corpus_where_another_kind_is_wanted_is_one_line(books: Path) -> None:
    with pytest.raises(UsageError, match="is no corpus of plain text, which the task pretrain takes"):
        tasks.run("pretrain", data="taxonomy")
    with pytest.raises(UsageError, match=r"no sequence of 5000 tokens"):
        tasks.run("pretrain", data=f"{books}/", text={"length": 5000})
    with pytest.raises(UsageError, match="with 4 heads take 9"):
        configure("pretrain", overrides={"model": {"hidden_size": 10}})
    with pytest.raises(UsageError, match="Did you mean 'rotary'"):
        configure("pretrain", overrides={"model": {"positions": "rotari"}})
