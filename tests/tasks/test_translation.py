"""Translation: parallel text, batches, the loss, beam search, scores, runs from end to end."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import tasks
from tasks.api import configure
from tasks.data.load import load
from tasks.data.parallel import own_parallel, parallel_from_lines
from tasks.errors import UsageError
from tasks.pretrain.masking import IGNORED
from tasks.translation.metrics import signatures, translation_scores
from tasks.translation.task import Translation
from tasks.translation.translate import load_translator, translate

WORDS = {"cat": "Katze", "dog": "Hund", "bird": "Vogel", "man": "Mann"}
SMALL: dict[str, Any] = {
    "model": {"hidden_size": 33, "layers": 1, "heads": 2, "dropout": 0.0},
    "train": {"epochs": 2, "batch_size": 8, "lr": 0.01, "warmup": 0, "eval_every": 1},
    "vocabulary": 300,
}


def rows(count: int, seed: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    picked = [draw.choices(list(WORDS), k=draw.randint(1, 3)) for _ in range(count)]
    return [" ".join(row) for row in picked], [" ".join(WORDS[word] for word in row) for row in picked]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Folder of a parallel text whose words have one translation each."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for seed, (split, count) in enumerate({"train": 60, "valid": 8, "test": 6}.items()):
        for language, lines in zip(("en", "de"), rows(count, seed), strict=True):
            (folder / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def small(texts: Path, **changes: Any) -> tuple[Translation, Any]:
    merged = {key: {**value, **changes.pop(key, {})} for key, value in SMALL.items() if isinstance(value, dict)}
    config = configure("translation", overrides={**SMALL, **merged, **changes, "data": str(texts)})
    return Translation(config), own_parallel(texts)


def test_lines_belong_together_or_the_text_is_refused(texts: Path) -> None:
    found = own_parallel(texts)
    assert found.languages == ("de", "en") and found.lines["train"]["en"] == rows(60, 0)[0]
    assert found.split == "own" and not found.more_tests and not found.warnings
    with pytest.raises(UsageError, match="the test split of x has 2 of a, 1 of b: as many lines"):
        parallel_from_lines("x", {"test": {"a": ["1", "2"], "b": ["1"]}})
    gap = parallel_from_lines("x", {"train": {"a": ["1", "", "3"], "b": ["i", "ii", "iii"]}})
    assert (
        gap.lines["train"] == {"a": ["1", "3"], "b": ["i", "iii"]} and "1 pairs of the train split" in gap.warnings[0]
    )
    (texts / "valid.de").unlink()
    with pytest.raises(UsageError, match=r"holds no valid.de"):
        own_parallel(texts)
    (texts / "train.de").unlink()
    with pytest.raises(UsageError, match=r"holds train.en alone"):
        own_parallel(texts)


def test_the_published_text_has_its_published_size(data_dir: Path) -> None:
    found = load("Multi30k", kind="parallel")
    assert {split: len(lines["de"]) for split, lines in found.lines.items()} == {
        "train": 29_000, "valid": 1_014, "test": 1_000, "test_2017_flickr": 1_000, "test_2017_mscoco": 461,
    }  # fmt: skip
    assert found.more_tests == ("test_2017_flickr", "test_2017_mscoco") and not found.warnings


def test_batches_hold_each_pair_once_an_epoch(texts: Path) -> None:
    (task, data), (other, _) = small(texts), small(texts)
    seen = []
    for index in range(task.n_batches(data)):
        batch = task.train_batch(data, 1, index, 3)
        again = other.train_batch(data, 1, index, 3)
        assert all(torch.equal(batch[key], again[key]) for key in batch)
        for source, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            target = labels[labels != IGNORED]
            assert source[0] == task.tokenizer.cls_token_id and target[-1] == task.tokenizer.sep_token_id
            words = (task.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in (source, target))
            seen.append(tuple(words))
    assert sorted(seen) == sorted(zip(*rows(60, 0), strict=True))
    first, second = (task.train_batch(data, epoch, 0, 3)["input_ids"] for epoch in (0, 1))
    assert first.shape != second.shape or not torch.equal(first, second)


@pytest.mark.parametrize("geometry", ["lorentz", "euclidean"])
def test_the_loss_is_that_of_the_model_with_smoothed_targets(texts: Path, geometry: str) -> None:
    task, data = small(texts, model={"geometry": geometry}, smoothing=0.2)
    torch.manual_seed(0)
    model = task.build(task.config, data).double().eval()
    batch = task.train_batch(data, 0, 0, 0)
    output = model(batch["input_ids"], batch["attention_mask"], labels=batch["labels"])
    log = output.logits.log_softmax(-1)[batch["labels"] != IGNORED]
    target = batch["labels"][batch["labels"] != IGNORED]
    wanted = -(0.8 * log[torch.arange(len(target)), target] + 0.2 * log.mean(-1)).mean()
    assert float(task.step(model, batch)[0].detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    with torch.no_grad():
        found = task.evaluate(model, data, "valid")
    assert set(found) == {"cross_entropy", "perplexity", "accuracy"}  # no line is translated unless asked for
    source, labels = rows(8, 1)
    losses, count = 0.0, 0
    for line, wanted_line in zip(source, labels, strict=True):  # one by one, without padding
        ids = torch.tensor([task.tokenizer(line)["input_ids"]])
        goal = torch.tensor([task.tokenizer(wanted_line)["input_ids"][1:]])
        logits = model(ids, labels=goal).logits[0]
        losses += float(F.cross_entropy(logits, goal[0], reduction="sum").detach())
        count += goal.shape[1]
    assert found["cross_entropy"] == pytest.approx(losses / count, rel=1e-5)


def test_greedy_search_is_the_likeliest_next_token_and_order_and_empty_lines_stay(texts: Path) -> None:
    task, data = small(texts)
    torch.manual_seed(0)
    model = task.build(task.config, data)
    lines = ["dog", "", "man bird cat", "cat dog"]
    found = translate(model, task.tokenizer, lines, beams=1)
    assert found[1] == "" and model.training
    model.eval()
    for line, text in zip(lines, found, strict=True):
        if not line:
            continue
        ids = torch.tensor([task.tokenizer(line)["input_ids"]])
        written = [task.tokenizer.cls_token_id]
        longest = max(len(task.tokenizer(one)["input_ids"]) for one in lines)
        for _ in range(int(1.5 * longest) + 10):
            with torch.no_grad():
                logits = model(ids, decoder_input_ids=torch.tensor([written])).logits[0, -1]
            written.append(int(logits.argmax()))
            if written[-1] == task.tokenizer.sep_token_id:
                break
        assert text == " ".join(task.tokenizer.decode(written, skip_special_tokens=True).split())
    assert translate(model, task.tokenizer, []) == []
    with pytest.raises(UsageError, match="give a list"):
        translate(model, task.tokenizer, "a cat")


def test_scores_are_those_of_sacrebleu_and_say_how() -> None:
    import sacrebleu

    found, wanted = ["The cat sat on the mat.", "A dog"], ["The cat sat on a mat.", "A dog barks."]
    scores = translation_scores(found, wanted)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(found, [wanted]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(found, [wanted]).score)
    assert translation_scores(wanted, wanted) == {"bleu": pytest.approx(100), "chrf": pytest.approx(100)}
    assert "case:mixed" in signatures()["bleu"] and "tok:13a" in signatures()["bleu"]
    assert "case:lc" in signatures(lowercase=True)["bleu"]


def test_a_run_learns_and_hands_over_a_translator(texts: Path, tmp_path: Path) -> None:
    options = {**SMALL, "train": {**SMALL["train"], "epochs": 25}}
    found = tasks.run("translation", data=str(texts), **options, runs=tmp_path / "runs", quiet=True)
    scores = found.metrics["test"]
    barely = tasks.run("translation", data=str(texts), **SMALL, runs=tmp_path / "runs", quiet=True).metrics["test"]
    assert scores["chrf"] > 2 * barely["chrf"] and scores["accuracy"] > 1.5 * barely["accuracy"]
    assert set(found.metrics["valid"]) < set(scores)
    assert found.values["details"]["direction"] == "en to de"
    assert found.values["details"]["signatures"] == signatures()
    model, tokenizer = load_translator(found.folder)
    source, wanted = rows(6, 2)
    written = translate(model, tokenizer, source)
    assert (found.folder / "translator" / "test.de.txt").read_text(encoding="utf-8").split("\n")[:-1] == written
    assert translation_scores(written, wanted)["chrf"] == pytest.approx(scores["chrf"])
    trained = tasks.load(found.folder)
    assert [row["translation"] for row in trained.predict([*source, ""])] == [*written, ""]
    with pytest.raises(UsageError, match="row 1: expected one line"):
        trained.predict(["a\tcat"])
    with pytest.raises(UsageError, match="holds no translator"):
        load_translator(tmp_path)


def test_a_stopped_run_goes_on_to_the_same_bits(texts: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "data": str(texts), "quiet": True, "decode": {"valid_lines": 3}}
    whole = tasks.run("translation", **options, out=tmp_path / "whole")
    step, calls = Translation.step, []

    def stops(self: Translation, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Translation, "step", stops)
        with pytest.raises(KeyboardInterrupt):
            tasks.run("translation", **options, out=tmp_path / "cut")
    again = tasks.resume(tmp_path / "cut", quiet=True)
    assert again.metrics == whole.metrics
    weights = [(folder / "model.safetensors").read_bytes() for folder in (again.folder, whole.folder)]
    assert weights[0] == weights[1]


def test_long_pairs_are_left_out_and_counted(texts: Path) -> None:
    lines = (texts / "train.en").read_text().split("\n")
    lines[0] = "cat " * 30
    (texts / "train.en").write_text("\n".join(lines))
    task, data = small(texts, max_length=20)
    task.prepare(data)
    assert data.warnings == ["1 training pairs of more than 20 tokens are left out"]
    (texts / "train.en").write_text("cat dog bird man\n" * 60)
    task, data = small(texts, max_length=4)
    with pytest.raises(UsageError, match="every training pair of texts is longer"):
        task.prepare(data)


def test_learned_positions_reach_as_far_as_the_longest_reference(texts: Path, tmp_path: Path) -> None:
    (texts / "valid.de").write_text("Hund " * 60 + "\n" + "Katze\n" * 7, encoding="utf-8")
    options = {**SMALL, "model": {**SMALL["model"], "positions": "learned"}, "max_length": 16}
    found = tasks.run("translation", data=str(texts), **options, runs=tmp_path / "runs", quiet=True)
    assert found.metrics["test"]["chrf"] > 0


def test_bad_options_say_what_is_known(texts: Path) -> None:
    for overrides, message in (
        ({"source": "de"}, "both de"),
        ({"monitor": "blue"}, "Did you mean 'bleu'"),
        ({"monitor": "bleu"}, "give --decode.valid_lines"),
        ({"decode": {"beams": 0}}, "at least 1"),
        ({"model": {"heads": 5}}, "with 5 heads take"),
    ):
        with pytest.raises(UsageError, match=message):
            configure("translation", overrides=overrides)
    task, data = small(texts, target="fr")
    with pytest.raises(UsageError, match="--target fr: texts has others"):
        task.prepare(data)
