"""The task of masked language modelling."""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz.hf import LorentzForMaskedLM
from tasks.data.corpus import Corpus
from tasks.errors import UsageError
from tasks.optim import decay_groups

from .architecture import lorentz_config
from .config import PretrainConfig
from .masking import IGNORED, mask_tokens, pack
from .tokenizer import learn_tokenizer

__all__ = ["Pretraining"]

_HELD_OUT = {"valid": 1, "test": 2}  # generators of the fixed masks
_AT_ONCE = 64


class Pretraining:
    """Masked tokens from their context, with an output layer that shares the points of the tokens."""

    name = "pretrain"
    Config = PretrainConfig
    Data = Corpus
    kind = "corpus"
    takes = "corpus of plain text"
    monitor = "-cross_entropy"
    exports = "pretrained"

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self._made: tuple[str, Any, dict[str, Tensor]] | None = None

    def prepare(self, data: Corpus) -> tuple[Any, dict[str, Tensor]]:
        """Tokenizer and sequences by split; made once for each content."""
        if self._made is None or self._made[0] != data.sha256:
            text = self.config.text
            tokenizer = learn_tokenizer(data.paragraphs["train"], vocabulary=text.vocabulary, lowercase=text.lowercase)
            ids = {split: pack(tokenizer, lines, text.length) for split, lines in data.paragraphs.items()}
            for split, rows in ids.items():
                if not len(rows):
                    raise UsageError(f"the {split} split of {data.name} fills no sequence of {text.length} tokens")
            self._made = data.sha256, tokenizer, ids
        return self._made[1:]

    def build(self, config: PretrainConfig, data: Corpus) -> LorentzForMaskedLM:
        """Make the model."""
        return LorentzForMaskedLM(lorentz_config(config.model, self.prepare(data)[0]))

    def passes(self, data: Corpus) -> int:
        """Count the batches of a pass over the training split."""
        return max(len(self.prepare(data)[1]["train"]) // self.config.train.batch_size, 1)

    def n_batches(self, data: Corpus) -> int:
        """Count the batches of an epoch."""
        return self.config.epoch_steps or self.passes(data)

    def train_batch(self, data: Corpus, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Take a batch of an order that is a function of seed and pass, masked as no batch before."""
        tokenizer, ids = self.prepare(data)
        turn, place = divmod(epoch * self.n_batches(data) + index, self.passes(data))
        order = np.random.default_rng([seed, turn]).permutation(len(ids["train"]))
        size = self.config.train.batch_size
        rows = torch.from_numpy(order[place * size : (place + 1) * size])
        words = np.random.SeedSequence([seed, turn, place]).generate_state(2)
        generator = torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))
        inputs, labels = mask_tokens(
            ids["train"][rows], share=self.config.text.mask, vocabulary=len(tokenizer), generator=generator
        )
        return {"input_ids": inputs, "labels": labels}

    def _logits(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and targets of the tokens to predict: the output layer sees no others."""
        assert isinstance(model, LorentzForMaskedLM)
        chosen = labels != IGNORED
        hidden = model.model(inputs).last_hidden_state[chosen]
        return model.lm_head(hidden).float(), labels[chosen]

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy of the tokens to predict."""
        logits, target = self._logits(model, batch["input_ids"], batch["labels"])
        return F.cross_entropy(logits, target), {}

    def weigh(self, batch: dict[str, Tensor]) -> float:
        """Tokens that the loss is the mean over."""
        return float((batch["labels"] != IGNORED).sum())

    def held_out(self, data: Corpus, split: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a held-out split, whose masks are the same for every seed and model."""
        tokenizer, ids = self.prepare(data)
        generator = torch.Generator().manual_seed(_HELD_OUT[split])
        inputs, labels = mask_tokens(
            ids[split], share=self.config.text.mask, vocabulary=len(tokenizer), generator=generator
        )
        if split == "valid" and len(inputs) > self.config.text.valid_sequences:
            rows = torch.linspace(0, len(inputs) - 1, self.config.text.valid_sequences).long()
            inputs, labels = inputs[rows], labels[rows]
        return inputs, labels

    def evaluate(self, model: nn.Module, data: Corpus, split: str) -> dict[str, float]:
        """Cross entropy in nats, its exponential, and the share predicted right, by masked token."""
        device = next(model.parameters()).device
        inputs, labels = self.held_out(data, split)
        loss, right, count = 0.0, 0, 0
        for some, wanted in zip(inputs.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True):
            logits, target = self._logits(model, some.to(device), wanted.to(device))
            loss += float(F.cross_entropy(logits, target, reduction="sum"))
            right += int((logits.argmax(-1) == target).sum())
            count += len(target)
        if not count:
            raise UsageError(f"no token of the {split} split of {data.name} is masked: raise --text.mask")
        mean = loss / count
        return {"cross_entropy": mean, "perplexity": exp(min(mean, 700.0)), "accuracy": right / count}

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Matrices with the weight decay of the configuration; vectors, scalars and the points of tokens without."""
        return decay_groups(model)

    def export(self, model: nn.Module, data: Corpus, folder: Path) -> None:
        """Fill the folder that the runner gives with the model and its tokenizer, for ``from_pretrained``."""
        assert isinstance(model, LorentzForMaskedLM)
        model.save_pretrained(folder)
        self.prepare(data)[0].save_pretrained(folder)
