"""Conversion: the falling k, the batches, the loss by its formula, and runs from end to end."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, GPT2Config, GPT2Model

import tasks
from lorentz.hf import LorentzModel
from tasks.api import configure, recipes
from tasks.convert.task import Conversion, k_at, mean_state, sentences
from tasks.data.corpus import own_corpus
from tasks.errors import UsageError
from tasks.pretrain.tokenizer import learn_tokenizer

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "one", "dog", "ran", "to", "it")


def line(seed: int) -> str:
    g = torch.Generator().manual_seed(seed)
    parts = [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (4 + seed % 5,), generator=g)) for _ in range(3)]
    return ". ".join(parts) + "."


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    folder.mkdir()
    for start, (split, count) in enumerate({"train": 30, "valid": 6, "test": 6}.items()):
        (folder / f"{split}.txt").write_text("\n".join(line(100 * start + i) for i in range(count)))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tokenizer = learn_tokenizer([line(i) for i in range(20)], vocabulary=300)
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            initializer_range=0.2,
        )
    )
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def options(source: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"source": str(source), "k": 1.0, "k_start": 100.0, "anneal": 0.5},
        "states": {"valid_sentences": 8},
        "train": {"epochs": 2, "batch_size": 4, "lr": 1e-3, "warmup": 0},
        "epoch_steps": 6,
        **changes,
    }


def made(books: Path, source: Path, **changes: Any) -> tuple[Conversion, Any]:
    config = configure("convert", overrides={**options(source, **changes), "data": str(books)})
    return Conversion(config), own_corpus(books)


def test_sentences_are_cut_at_their_ends_and_short_ones_left_out() -> None:
    text = ["One two three four. Five six! Seven eight, nine ten; eleven twelve thirteen fourteen?", "a b c d"]
    assert sentences(text) == [
        "One two three four.", "Seven eight, nine ten;", "eleven twelve thirteen fourteen?", "a b c d",
    ]  # fmt: skip


def test_k_falls_by_one_factor_and_stays() -> None:
    ks = [k_at(step, 20, start=1e4, end=1.0, share=0.5) for step in range(20)]
    assert ks[0] == 1e4 and ks[10:] == [1.0] * 10
    ratios = [b / a for a, b in pairwise(ks[:11])]
    assert ratios == pytest.approx([1e4**-0.1] * 10)
    assert k_at(0, 20, start=1e4, end=2.0, share=0.0) == 2.0


def test_k_has_fallen_when_the_steps_end_however_they_are_counted(books: Path, source: Path) -> None:
    train = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "warmup": 0, "max_steps": 4}
    task, data = made(books, source, train=train)
    ks = [float(task.train_batch(data, 0, step, 0)["k"]) for step in range(4)]
    assert ks == pytest.approx([k_at(step, 4, start=100.0, end=1.0, share=0.5) for step in range(4)]) and ks[-1] == 1.0


def test_a_pass_sees_every_batch_once_and_is_a_function_of_seed_and_place(books: Path, source: Path) -> None:
    task, data = made(books, source, epoch_steps=None)
    count = task.n_batches(data)
    texts = task.prepare(data)["train"]
    assert count == len(texts) // 4

    def rows(epoch: int) -> list[tuple[int, ...]]:
        found = []
        for index in range(count):
            batch = task.train_batch(data, epoch, index, 0)
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                found.append(tuple(ids[mask.bool()].tolist()))
        return found

    known = {tuple(ids) for ids in task.source()[0](texts)["input_ids"]}
    first, second = rows(0), rows(1)
    assert set(first) <= known and len(first) == count * 4 and first != second and first == rows(0)
    assert len(texts) - len(first) < 4
    every = sorted(tuple(ids) for ids in task.source()[0](texts)["input_ids"])
    for row in first:  # none twice beyond what the text itself repeats
        assert first.count(row) <= every.count(row)


def test_the_loss_is_the_formula_at_the_k_of_the_batch_and_the_model_keeps_its_own(books: Path, source: Path) -> None:
    task, data = made(books, source, states={"pooled": 2.0, "hidden": 0.5})
    model = task.build(task.config, data)
    batch = {**task.train_batch(data, 0, 0, 0), "k": torch.tensor(7.0, dtype=torch.float64)}
    loss, scalars = task.step(model, batch)
    assert float(model.manifold.k) == 1.0 and float(scalars["k"]) == 7.0
    teacher = AutoModel.from_pretrained(source).eval()
    at = LorentzModel.from_euclidean(teacher, k=7.0)
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "output_hidden_states": True}
    with torch.no_grad():
        want, got = teacher(**given).hidden_states, [x[..., 1:] for x in at(**given).hidden_states]
    mask = batch["attention_mask"].bool()
    errors = [(((a - b) ** 2)[mask].sum() / (b**2)[mask].sum()) for a, b in zip(got, want, strict=True)]
    means = [torch.stack([x[i, mask[i]].mean(0) for i in range(4)]) for x in (got[-1], want[-1])]
    expected = 2.0 * (1 - F.cosine_similarity(*means).mean()) + 0.5 * sum(errors) / 3
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
    assert torch.allclose(mean_state(want[-1], batch["attention_mask"]), means[1], atol=1e-6)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters()) and all(
        p.grad is None for p in task.source()[1].parameters()
    )


def test_at_large_k_nothing_is_left_to_learn(books: Path, source: Path) -> None:
    task, data = made(books, source, model={"source": str(source), "k": 1e6, "k_start": 1e6})
    with torch.no_grad():
        found = task.evaluate(task.build(task.config, data).eval(), data, "test")
    assert found["cosine"] == pytest.approx(1, abs=1e-5) and found["error"] < 1e-8


def test_a_run_comes_nearer_to_the_source_and_leaves_a_model_that_loads(
    books: Path, source: Path, tmp_path: Path
) -> None:
    task, data = made(books, source)
    with torch.no_grad():
        before = task.evaluate(task.build(task.config, data).eval(), data, "test")
    result = tasks.run("convert", data=f"{books}/", out=tmp_path / "run", quiet=True, **options(source))
    assert result.metrics["test"]["error"] < before["error"] and result.values["manifold"]["residual"] < 1e-5
    folder = tmp_path / "run" / "converted"
    model = AutoModel.from_pretrained(folder).eval()
    assert isinstance(model, LorentzModel) and float(model.manifold.k) == 1.0
    with torch.no_grad():
        assert task.evaluate(model, data, "test") == pytest.approx(result.metrics["test"], rel=1e-5)
    assert AutoTokenizer.from_pretrained(folder)("the cat")["input_ids"][0] == 1


def test_a_stopped_run_goes_on_to_the_same_result(
    books: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tasks.run("convert", data=f"{books}/", out=tmp_path / "whole", quiet=True, **options(source))
    step, calls = Conversion.step, 0

    def stopping(self: Conversion, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return step(self, *given)

    monkeypatch.setattr(Conversion, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        tasks.run(
            "convert", data=f"{books}/", out=tmp_path / "cut", quiet=True, checkpoint_seconds=0.0, **options(source)
        )
    monkeypatch.setattr(Conversion, "step", step)
    assert tasks.resume(tmp_path / "cut", quiet=True).metrics == whole.metrics


@pytest.mark.parametrize("recipe", [name for name in recipes() if name.startswith("convert/")])
def test_every_recipe_runs_a_few_steps(recipe: str, books: Path, source: Path, tmp_path: Path) -> None:
    small = {"model": {"source": str(source)}, "train": {"epochs": 1, "batch_size": 2}, "epoch_steps": 2}
    result = tasks.run("convert", recipe=recipe, data=f"{books}/", out=tmp_path / "run", quiet=True, **small)
    assert 0 < result.metrics["test"]["cosine"] <= 1


def test_mistakes_are_one_line(books: Path, tmp_path: Path, source: Path) -> None:
    GPT2Model(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt")
    learn_tokenizer(["a b"], vocabulary=300).save_pretrained(tmp_path / "gpt")
    with pytest.raises(UsageError, match=r"--model.source .*'gpt2', which has a decoder"):
        tasks.run(
            "convert", data=f"{books}/", model={"source": str(tmp_path / "gpt")}, out=tmp_path / "run", quiet=True
        )
    with pytest.raises(UsageError, match="k_start is at least"):
        configure("convert", overrides={"model": {"k": 10.0, "k_start": 1.0}})
    with pytest.raises(UsageError, match="nothing would be trained"):
        configure("convert", overrides={"states": {"pooled": 0.0, "hidden": 0.0}})
