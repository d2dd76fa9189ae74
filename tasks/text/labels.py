"""Frozen label vectors: classes are read from a backbone's hidden states without a trained head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz import Lorentz
from tasks.data.text import Texts
from tasks.errors import UsageError

from .backbone import is_lorentz
from .rows import spread
from .tokens import Tokens, tokenize

__all__ = ["LabelHead", "label_head"]

TEMPERATURE = 0.1
_TEXTS = 512  # training texts at most, spread over all, whose mean is the origin
_AT_ONCE = 64


class LabelHead(nn.Module):
    """Logits are cosines between pooled states, counted from their mean, and one vector a class, over a temperature of 0.1.

    Parameters
    ----------
    backbone : whose pooled states, points of a Lorentz one, are read; of points the logarithm at the origin is taken
    centre : mean (d) of the pooled states of the untouched backbone
    vectors : (C, d), of length one
    """

    centre: Tensor
    vectors: Tensor
    returns_points = False

    def __init__(self, backbone: Any, *, centre: Tensor, vectors: Tensor) -> None:
        super().__init__()
        self.flat = _Flat(backbone)
        self.register_buffer("centre", centre)
        self.register_buffer("vectors", vectors)

    def reads(self, backbone: Any) -> None:
        """Read another copy of the backbone, whose curvature may be trained."""
        self.flat = _Flat(backbone)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C) of pooled states (B, d)."""
        away = F.normalize(self.flat(x).float() - self.centre, dim=-1)
        return away @ self.vectors.T / TEMPERATURE


class _Flat:
    """Pooled states in coordinates of a vector space."""

    def __init__(self, backbone: Any) -> None:
        self.manifold: Any = backbone.manifold if is_lorentz(backbone) else None
        self.geometry: Any = backbone.geometry if is_lorentz(backbone) else None

    def __call__(self, x: Tensor) -> Tensor:
        if self.geometry is None:
            return x
        if isinstance(self.manifold, Lorentz):
            x = self.manifold.logmap0(x)
        found: Tensor = self.geometry.space_of(x)
        return found


def _pool(model: Any, tokens: Tokens, places: np.ndarray) -> Tensor:
    """Flat pooled states (N, d) of the texts at some places."""
    flat, found = _Flat(model.backbone), []
    device = next(model.parameters()).device
    with torch.no_grad():
        for start in range(0, len(places), _AT_ONCE):
            batch = tokens.batch(places[start : start + _AT_ONCE])
            batch = {name: value.to(device) for name, value in batch.items()}
            found.append(flat(model.pooled(batch)).float())
    return torch.cat(found)


def label_head(kind: str, model: Any, data: Texts, tokens: Tokens, label: Tensor, tokenizer: Any) -> LabelHead:
    """Label vectors of an untouched backbone.

    Parameters
    ----------
    kind : ``"words"``, the pooled states of the names of the classes, or ``"means"``, those of the training texts of each
        class; less their mean
    model : pools the hidden states of the backbone
    tokens, label : of the training rows
    tokenizer : of the backbone

    Raises
    ------
    UsageError : a regression, a single class, a class without training rows, or names that the backbone cannot tell apart.
    """
    if data.kind != "classification":
        raise UsageError(f"--model.head {kind}: {data.name} is a regression, and label vectors are those of classes")
    if len(data.labels) < 2:
        raise UsageError(f"--model.head {kind}: all texts of {data.name} have the label {data.labels[0]}")
    absent = [name for i, name in enumerate(data.labels) if not bool((label == i).any())]
    if kind == "means" and absent:
        raise UsageError(f"--model.head means: no training row has the label {', '.join(absent)}")
    training = model.training
    model.eval()
    chosen = spread(len(tokens), _TEXTS)
    if kind == "words":
        names = [name.replace("_", " ").replace(":", " ") for name in data.labels]
        vectors = _pool(model, tokenize(tokenizer, names, None, max_length=32), np.arange(len(names)))
        states = _pool(model, tokens, chosen)
    else:
        every = _pool(model, tokens, np.arange(len(tokens)))
        vectors = torch.stack([every[label.to(every.device) == i].mean(0) for i in range(len(data.labels))])
        states = every[torch.from_numpy(chosen).to(every.device)]
    model.train(training)
    vectors = vectors - vectors.mean(0)
    if not bool((vectors.norm(dim=1) > 1e-5 * states.norm(dim=1).mean()).all()):
        raise UsageError(f"--model.head {kind}: the backbone gives the same vector to all labels of {data.name}")
    return LabelHead(model.backbone, centre=states.mean(0), vectors=F.normalize(vectors, dim=1))
