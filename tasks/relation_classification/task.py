"""The task of relation classification."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.data.sentences import RelationSentences
from tasks.encoder import encoder_sources

from .config import RelationClassificationConfig
from .features import features, frozen_encoder
from .margin import margin_loss, margins
from .scorer import official_macro_f1

__all__ = ["LinearHead", "RelationClassification"]


class LinearHead(nn.Module):
    """One linear layer on features that are brought to mean 0 and deviation 1; carries the margins of its loss.

    Parameters
    ----------
    features : (N, m), whose means and deviations are taken
    margin : (C, C)
    dropout : share of the features left out in training
    """

    mean: Tensor
    scale: Tensor
    margin: Tensor

    def __init__(self, features: Tensor, margin: Tensor, *, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", features.float().mean(0))
        self.register_buffer(
            "scale", features.float().std(0).clamp(min=1e-6)
        )  # a part that no sentence has is constant
        self.register_buffer("margin", margin)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features.shape[1], len(margin))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C) of features (B, m)."""
        logits: Tensor = self.linear(self.dropout((x.float() - self.mean) / self.scale))
        return logits


class RelationClassification:
    """A linear head on marker features of a frozen encoder, by softmax loss, with margins if the configuration says so."""

    name = "re"
    Config = RelationClassificationConfig
    Data = RelationSentences
    kind = "re"
    takes = "set of marked sentences"

    def __init__(self, config: RelationClassificationConfig) -> None:
        self.config = config
        self.monitor = config.monitor
        self._features: tuple[str, dict[str, Tensor]] | None = None

    def sources(self) -> dict[str, str]:
        """SHA-256 of the encoder."""
        return encoder_sources(self.config.model.encoder)

    @cached_property
    def encoder(self) -> tuple[Any, Any]:
        """Tokenizer and model of the encoder, for sentences that are in no data set."""
        return frozen_encoder(self.config.model.encoder)

    def features(self, data: RelationSentences) -> dict[str, Tensor]:
        """Features of every split, read or made once for each content."""
        if self._features is None or self._features[0] != data.sha256:
            self._features = data.sha256, features(data, self.config.model.encoder)
        return self._features[1]

    def build(self, config: RelationClassificationConfig, data: RelationSentences) -> LinearHead:
        """Make the head."""
        return LinearHead(self.features(data)["train"], margins(data, config.margin), dropout=config.model.dropout)

    def n_batches(self, data: RelationSentences) -> int:
        """Count the batches of an epoch."""
        return -(-len(self.features(data)["train"]) // self.config.train.batch_size)

    def train_batch(self, data: RelationSentences, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Take a batch of an order that is a function of seed and epoch."""
        order = np.random.default_rng([seed, epoch]).permutation(len(data.label["train"]))
        size = self.config.train.batch_size
        rows = torch.from_numpy(order[index * size : (index + 1) * size])
        return {"features": self.features(data)["train"][rows], "label": data.label["train"][rows]}

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Softmax loss with margins."""
        assert isinstance(model, LinearHead)
        return margin_loss(model(batch["features"]), batch["label"], model.margin), {}

    def predict(self, model: nn.Module, data: RelationSentences, split: str) -> Tensor:
        """Predicted class of every sentence of a split, int64 (N,)."""
        device = next(model.parameters()).device
        return torch.cat([model(part.to(device)).argmax(1).cpu() for part in self.features(data)[split].split(4096)])

    def evaluate(self, model: nn.Module, data: RelationSentences, split: str) -> dict[str, float]:
        """Official macro F1 without the class of no relation, and accuracy over all classes."""
        found, right = self.predict(model, data, split), data.label[split]
        key, proposed = ({str(n): data.labels[int(c)] for n, c in enumerate(ids)} for ids in (right, found))
        return {
            "macro_f1": official_macro_f1(key, proposed),
            "accuracy": float((found == right).double().mean()),
        }

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """All parameters alike."""
        return [{"params": list(model.parameters())}]
