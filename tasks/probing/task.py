"""The task of structural probes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.data.treebank import SPLITS, Sentence, Treebank
from tasks.text.backbone import backbone_sha256, check_fits, load_backbone, load_tokenizer, longest
from tasks.text.config import ModelConfig
from tasks.text.rows import epoch_batches

from .config import LINEAR, MONITORS, ProbingConfig
from .metrics import depth_scores, distance_scores
from .model import LinearOrder, Probe
from .states import WordStates, layer_number, word_states

__all__ = ["Probing"]

_EVALUATED = 64  # sentences a batch, of like length


class Probing:
    """Distances of words, or their depths, from the states of a frozen encoder, which are computed once.

    ``states`` may be set beforehand, by split, to probe one encoder many times.
    """

    name = "probing"
    Config = ProbingConfig
    Data = Treebank
    kind = "treebank"
    takes = "treebank"

    def __init__(self, config: ProbingConfig) -> None:
        self.config = config
        self.monitor = config.monitor or MONITORS[config.probe.target][0]
        self.states: dict[str, WordStates] | None = None
        self._data: str | None = None
        self._sentences: dict[str, list[Sentence]] = {}

    @property
    def encoder(self) -> ModelConfig:
        """The encoder as the task of texts names it."""
        return ModelConfig(name=self.config.model.name, random=self.config.model.random)

    def chosen(self, data: Treebank, split: str) -> list[Sentence]:
        """Sentences of a split before any is left out for its length."""
        found = list(data.sentences[split])
        if split == "train" and self.config.max_train is not None:
            order = np.random.default_rng([self.config.seed, 7]).permutation(len(found))
            found = [found[i] for i in order[: self.config.max_train]]
        return found

    def prepare(self, data: Treebank) -> None:
        """Read the states of all words; done once for each content."""
        if self._data == data.sha256:
            return
        sentences = {split: self.chosen(data, split) for split in SPLITS}
        states = self.states
        if states is None:
            states = self._linear(sentences) if self.config.model.name == LINEAR else self._read(sentences)
        for split, some in sentences.items():
            kept = states[split].kept
            if left := len(some) - len(kept):
                data.warnings.append(
                    f"{left} sentences of the {split} split are left out: more tokens than are read, or a word without one"
                )
            self._sentences[split] = [some[i] for i in kept]
        self.states, self._data = states, data.sha256

    def _linear(self, sentences: dict[str, list[Sentence]]) -> dict[str, WordStates]:
        found = {}
        for split, some in sentences.items():
            starts = np.concatenate([[0], np.cumsum([len(one.words) for one in some])])
            found[split] = WordStates(torch.zeros(int(starts[-1]), 1), starts, np.arange(len(some)))
        return found

    def _read(self, sentences: dict[str, list[Sentence]]) -> dict[str, WordStates]:
        name, limit = self.config.model.name, self.config.max_length
        tokenizer = load_tokenizer(name)
        with torch.random.fork_rng():  # a random encoder is that of the seed, whatever was drawn before
            torch.manual_seed(self.config.seed)
            backbone = load_backbone(self.encoder)
        check_fits(backbone, name, max_length=limit or 0, largest=len(tokenizer) - 1)
        layer = layer_number(backbone, self.config.model.layer)
        limit = longest(backbone) if limit is None else limit
        return {
            split: word_states(
                backbone, tokenizer, [one.words for one in some], layers=[layer], max_length=limit, name=name
            )[layer]
            for split, some in sentences.items()
        }

    def sources(self) -> dict[str, str]:
        """SHA-256 of the encoder, where it is there."""
        digest = None if self.config.model.name == LINEAR else backbone_sha256(self.encoder)
        return {} if digest is None else {f"the encoder {self.config.model.name}": digest}

    def build(self, config: ProbingConfig, data: Treebank) -> nn.Module:
        """Read the states and make the probe."""
        self.prepare(data)
        assert self.states is not None
        if config.model.name == LINEAR:
            return LinearOrder(config.probe.target)
        return Probe(self.states["train"].vectors.shape[1], config.probe)

    def n_batches(self, data: Treebank) -> int:
        """Count the batches of an epoch; the control has nothing to learn."""
        self.prepare(data)
        return (
            0 if self.config.model.name == LINEAR else -(-len(self._sentences["train"]) // self.config.train.batch_size)
        )

    def train_batch(self, data: Treebank, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Take sentences of like length, in an order that is a function of seed and epoch, with the target of each."""
        self.prepare(data)
        assert self.states is not None
        lengths = np.diff(self.states["train"].starts)
        generator = np.random.default_rng([seed, epoch])
        rows = epoch_batches(len(lengths), self.config.train.batch_size, generator, lengths)[index]
        states, there = self.states["train"].batch(rows)
        deep, size = self.config.probe.target == "depth", there.shape[1]
        target = torch.zeros(len(rows), size) if deep else torch.zeros(len(rows), size, size)
        for i, row in enumerate(rows):
            one = self._sentences["train"][row]
            n, gold = len(one.words), torch.from_numpy(one.depths if deep else one.distances)
            target[(i, slice(n)) if deep else (i, slice(n), slice(n))] = gold.float()
        return {"states": states, "there": there, "target": target}

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over the sentences of the mean absolute error over a sentence's words, or its ordered pairs of words."""
        there = batch["there"]
        weight = there if self.config.probe.target == "depth" else there[:, :, None] & there[:, None]
        error = (model(batch["states"]).float() - batch["target"]).abs() * weight
        dims = tuple(range(1, error.ndim))
        return (error.sum(dims) / weight.sum(dims)).mean(), {}

    def predict(self, model: nn.Module, data: Treebank, split: str) -> list[np.ndarray]:
        """Distances (n, n) or depths (n,) of every sentence of a split."""
        self.prepare(data)
        assert self.states is not None
        lengths = np.diff(self.states[split].starts)
        device = next(model.parameters(), torch.empty(0)).device
        found: list[Any] = [None] * len(lengths)
        order = np.argsort(-lengths, kind="stable")
        for first in range(0, len(order), _EVALUATED):
            rows = order[first : first + _EVALUATED]
            predicted = model(self.states[split].batch(rows)[0].to(device)).detach().cpu().double().numpy()
            for row, values in zip(rows, predicted, strict=True):
                found[row] = values[(slice(lengths[row]),) * values.ndim]
        return found

    def evaluate(self, model: nn.Module, data: Treebank, split: str) -> dict[str, float]:
        """Scores of a split; see :mod:`tasks.probing.metrics`."""
        predicted = self.predict(model, data, split)
        scores = depth_scores if self.config.probe.target == "depth" else distance_scores
        found = scores(self._sentences[split], predicted)
        return {self.monitor: found[self.monitor], **found}

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """One group."""
        return [{"params": list(model.parameters())}]
