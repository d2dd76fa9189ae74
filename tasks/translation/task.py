"""The task of machine translation."""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz.hf import LorentzForConditionalGeneration
from tasks.data.parallel import Parallel
from tasks.errors import UsageError
from tasks.optim import decay_groups
from tasks.pretrain.architecture import lorentz_config
from tasks.pretrain.masking import IGNORED
from tasks.pretrain.tokenizer import learn_tokenizer
from tasks.registry import did_you_mean
from tasks.text.rows import epoch_batches, spread
from tasks.text.tokens import Tokens

from .config import TranslationConfig
from .metrics import signatures, translation_scores
from .translate import FOLDER, longest_translation, translate

__all__ = ["Translation"]

_AT_ONCE = 64


class Translation:
    """The next token of the translation, from the sentence and the tokens before it."""

    name = "translation"
    Config = TranslationConfig
    Data = Parallel
    kind = "parallel"
    takes = "parallel text"
    exports = FOLDER

    def __init__(self, config: TranslationConfig) -> None:
        self.config = config
        self.monitor = "bleu" if config.monitor == "bleu" else f"-{config.monitor}"
        self._data: str | None = None
        self.tokenizer: Any = None
        self._pairs: dict[str, tuple[Tokens, Tokens]] = {}
        self._written: dict[str, list[str]] = {}

    def prepare(self, data: Parallel) -> None:
        """Learn the vocabulary and write all splits in it; done once for each content."""
        if self._data == data.sha256:
            return
        languages = (self.config.source, self.config.target)
        for option, language in zip(("source", "target"), languages, strict=True):
            if language not in data.languages:
                raise UsageError(
                    f"--{option} {language}: {data.name} has others. {did_you_mean(language, data.languages)}"
                )
        train = data.lines["train"]
        self.tokenizer = learn_tokenizer(
            [line for language in languages for line in train[language]],
            vocabulary=self.config.vocabulary,
            lowercase=self.config.lowercase,
            max_length=self.config.max_length,
        )
        for split, lines in data.lines.items():
            source, target = (self.tokenizer(lines[language], verbose=False)["input_ids"] for language in languages)
            target = [row[1:] for row in target]  # labels begin after the start token
            if split == "train":
                source, target = self._short(data, source, target)
            cut = [row[: self.config.max_length] for row in source]
            self._pairs[split] = (self._tokens(cut), self._tokens(target))
        self._data = data.sha256

    def _short(
        self, data: Parallel, source: list[list[int]], target: list[list[int]]
    ) -> tuple[list[list[int]], list[list[int]]]:
        limit = self.config.max_length
        kept = [i for i in range(len(source)) if max(len(source[i]), len(target[i]) + 1) <= limit]
        if not kept:
            raise UsageError(f"--max_length {limit}: every training pair of {data.name} is longer")
        if left := len(source) - len(kept):
            data.warnings.append(f"{left} training pairs of more than {limit} tokens are left out")
        return [source[i] for i in kept], [target[i] for i in kept]

    def _tokens(self, ids: list[list[int]]) -> Tokens:
        return Tokens(ids, [[0] * len(row) for row in ids], pad=self.tokenizer.pad_token_id)

    def build(self, config: TranslationConfig, data: Parallel) -> LorentzForConditionalGeneration:
        """Make the model."""
        self.prepare(data)
        signatures()  # a missing library is said before anything is trained
        longest = max(int(side.lengths.max()) for pair in self._pairs.values() for side in pair)
        found = lorentz_config(
            config.model,
            self.tokenizer,
            max_position_embeddings=max(longest, longest_translation(config.max_length)) + 1,
            decoder_start_token_id=self.tokenizer.cls_token_id,
        )
        return LorentzForConditionalGeneration(found)

    def n_batches(self, data: Parallel) -> int:
        """Count the batches of an epoch."""
        self.prepare(data)
        return -(-len(self._pairs["train"][0]) // self.config.train.batch_size)

    def train_batch(self, data: Parallel, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Take pairs of like length, in an order that is a function of seed and epoch."""
        self.prepare(data)
        source, target = self._pairs["train"]
        lengths, generator = source.lengths + target.lengths, np.random.default_rng([seed, epoch])
        return self._batch("train", epoch_batches(len(source), self.config.train.batch_size, generator, lengths)[index])

    def _batch(self, split: str, rows: np.ndarray) -> dict[str, Tensor]:
        source, target = (side.batch(rows) for side in self._pairs[split])
        labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, IGNORED)
        return {"input_ids": source["input_ids"], "attention_mask": source["attention_mask"], "labels": labels}

    def _loss(self, model: nn.Module, batch: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor]:
        """Cross entropy, and the logits (B, S, V), of a batch."""
        assert isinstance(model, LorentzForConditionalGeneration)
        start = model.prepare_decoder_input_ids_from_labels(batch["labels"])
        output = model(batch["input_ids"], batch["attention_mask"], decoder_input_ids=start, use_cache=False)
        logits = output.logits.float()
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, **options), logits

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy of a token of the translation, with smoothed targets."""
        return self._loss(model, batch, label_smoothing=self.config.smoothing)[0], {}

    def weigh(self, batch: dict[str, Tensor]) -> float:
        """Tokens that the loss is the mean over."""
        return float((batch["labels"] != IGNORED).sum())

    def _by_token(self, model: nn.Module, split: str) -> dict[str, float]:
        device = next(model.parameters()).device
        source = self._pairs[split][0]
        order = np.argsort(-source.lengths, kind="stable")
        loss, right, count = 0.0, 0, 0
        for first in range(0, len(order), _AT_ONCE):
            batch = {n: value.to(device) for n, value in self._batch(split, order[first : first + _AT_ONCE]).items()}
            part, logits = self._loss(model, batch, reduction="sum")
            there = batch["labels"] != IGNORED
            loss += float(part)
            right += int((logits.argmax(-1) == batch["labels"])[there].sum())
            count += int(there.sum())
        return {"cross_entropy": loss / count, "perplexity": exp(min(loss / count, 700.0)), "accuracy": right / count}

    def _translated(
        self, model: nn.Module, data: Parallel, split: str, rows: np.ndarray | None = None
    ) -> dict[str, float]:
        """Scores of the translations of some lines of a split, or of all, which are then kept to be handed over."""
        lines, config = data.lines[split], self.config
        places = range(len(lines[config.source])) if rows is None else rows.tolist()
        found = translate(
            model,
            self.tokenizer,
            [lines[config.source][i] for i in places],
            beams=config.decode.beams,
            length_penalty=config.decode.length_penalty,
            max_length=config.max_length,
        )
        if rows is None:
            self._written[split] = found
        return translation_scores(found, [lines[config.target][i] for i in places], lowercase=config.lowercase)

    def evaluate(self, model: nn.Module, data: Parallel, split: str) -> dict[str, float]:
        """Cross entropy in nats, perplexity and accuracy by token of the reference; BLEU and chrF by translating.

        Of the validation split so many lines are translated as the configuration says; further test sets give ``bleu_NAME``.
        """
        self.prepare(data)
        found: dict[str, float] = {}
        if split != "valid":
            found = self._translated(model, data, split)
            for name in data.more_tests:
                found[f"bleu_{name}"] = self._translated(model, data, name)["bleu"]
        elif self.config.decode.valid_lines:
            found = self._translated(
                model, data, split, spread(len(self._pairs[split][0]), self.config.decode.valid_lines)
            )
        return {**found, **self._by_token(model, split)}

    def details(self) -> dict[str, Any]:
        """What sacreBLEU says to print beside the scores, and the direction."""
        direction = f"{self.config.source} to {self.config.target}"
        return {"direction": direction, "signatures": signatures(lowercase=self.config.lowercase)}

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Matrices with the weight decay of the configuration; vectors, scalars and the points of tokens without."""
        return decay_groups(model)

    def export(self, model: nn.Module, data: Parallel, folder: Path) -> None:
        """Fill the folder that the runner gives with the model, its tokenizer, and the translations of the test sets."""
        assert isinstance(model, LorentzForConditionalGeneration)
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        for name, lines in self._written.items():
            (folder / f"{name}.{self.config.target}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
