"""A backbone and the head that reads classes or a number from its pooled hidden states."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from deltas.storage import fingerprint
from lorentz import Lorentz, LorentzPooling

from .backbone import is_lorentz

__all__ = ["EuclideanHead", "LorentzHead", "TextModel", "make_head"]


class _Head(nn.Module):
    """Outputs in units of the labels: those of a regression are brought back from mean 0 and deviation 1."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: float, scale: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C), or predictions (B, 1) of a regression, of pooled states (B, d)."""
        return self.mean + self.scale * self.read(x).float()

    def read(self, x: Tensor) -> Tensor:
        """Outputs before they are scaled."""
        raise NotImplementedError


class EuclideanHead(_Head):
    """Dropout and one linear layer.

    Parameters
    ----------
    dim, outputs : sizes
    dropout : share of the coordinates left out in training
    mean, scale : of the labels of a regression
    """

    def __init__(self, dim: int, outputs: int, *, dropout: float, mean: float = 0.0, scale: float = 1.0) -> None:
        super().__init__(mean, scale)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim, outputs)

    def read(self, x: Tensor) -> Tensor:
        """Outputs of pooled vectors."""
        out: Tensor = self.linear(self.dropout(x))
        return out


class LorentzHead(_Head):
    """Normalisation, dropout of space coordinates, and multinomial logistic regression of points.

    A regression reads one linear layer on the logarithm at the origin instead. Of a flat twin it is what these become in flat
    space.

    Parameters
    ----------
    backbone : of lorentz.hf, whose manifold and normalisation it takes
    outputs, dropout, mean, scale : as for :class:`EuclideanHead`
    classes : whether the outputs are logits of classes
    """

    returns_points = False

    def __init__(
        self, backbone: Any, outputs: int, *, classes: bool, dropout: float, mean: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__(mean, scale)
        config, self.geometry = backbone.config, backbone.geometry
        self.manifold = backbone.manifold
        self.norm = None if config.norm == "none" else self.geometry.norm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.classes = classes
        if classes:
            self.classifier = self.geometry.classifier(config.hidden_size, outputs, kind="mlr")
        else:
            self.classifier = nn.Linear(config.hidden_size - 1, outputs)

    def read(self, x: Tensor) -> Tensor:
        """Outputs of pooled points."""
        x = x if self.norm is None else self.norm(x)
        if self.training and self.dropout.p:
            x = self.manifold.lift(self.dropout(self.geometry.space_of(x)))
        if not self.classes and isinstance(self.manifold, Lorentz):
            x = self.geometry.space_of(self.manifold.logmap0(x))
        out: Tensor = self.classifier(x)
        return out


def make_head(backbone: Any, label: Tensor, classes: int, *, dropout: float) -> nn.Module:
    """Head of a backbone.

    Parameters
    ----------
    label : of the training rows, whose mean and deviation a regression takes
    classes : their number; 0 for a regression
    """
    options: dict[str, float] = {"dropout": dropout}
    if not classes:
        options |= {"mean": float(label.mean()), "scale": max(float(label.std(correction=0)), 1e-6)}
    if is_lorentz(backbone):
        return LorentzHead(backbone, classes or 1, classes=bool(classes), **options)
    return EuclideanHead(backbone.config.hidden_size, classes or 1, **options)


class TextModel(nn.Module):
    """``backbone`` and ``head``. Where the backbone is frozen it stays in evaluation mode.

    Parameters
    ----------
    backbone : module that gives ``last_hidden_state``
    head : module of pooled states
    pooling : ``"mean"`` of the tokens (the centroid, of Lorentz points) or the ``"first"``
    frozen : whether the backbone is

    Attributes
    ----------
    pretrained : names of the tensors of the backbone's state, before any delta
    """

    def __init__(self, backbone: Any, head: nn.Module, *, pooling: str = "mean", frozen: bool = False) -> None:
        super().__init__()
        self.backbone, self.head, self.pooling, self.frozen = backbone, head, pooling, frozen
        typed = getattr(backbone.config, "type_vocab_size", 2) > 1
        self.types = typed and "token_type_ids" in inspect.signature(backbone.forward).parameters
        kind = "centroid" if pooling == "mean" else pooling
        self.pretrained = frozenset(backbone.state_dict())
        self.points = LorentzPooling(kind, manifold=backbone.manifold) if is_lorentz(backbone) else None

    def remember_backbone(self) -> None:
        """Note which backbone this is, for checkpoints that hold no backbone; another one is refused when they are loaded."""
        digest = bytearray.fromhex(fingerprint(self.backbone))
        self.register_buffer("backbone_sha256", torch.frombuffer(digest, dtype=torch.uint8).clone())
        self.register_load_state_dict_pre_hook(_same_backbone)

    def train(self, mode: bool = True) -> TextModel:
        """Set the mode, except that of a frozen backbone."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def pooled(self, batch: dict[str, Tensor]) -> Tensor:
        """Pooled hidden states (B, d) of tokens: ``input_ids``, ``attention_mask``, ``token_type_ids``, all (B, S)."""
        types = {"token_type_ids": batch["token_type_ids"]} if self.types else {}
        mask = batch["attention_mask"]
        hidden: Tensor = self.backbone(input_ids=batch["input_ids"], attention_mask=mask, **types).last_hidden_state
        if self.points is not None:
            pooled: Tensor = self.points(hidden, key_padding_mask=mask.bool())
            return pooled
        if self.pooling == "first":
            return hidden[:, 0]
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1.0)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B, C), or a regression's values (B, 1), of tokens or of the ``pooled`` states of a batch that has them."""
        out: Tensor = self.head(batch["pooled"] if "pooled" in batch else self.pooled(batch))
        return out


def _same_backbone(model: Any, state: dict[str, Any], *_: Any) -> None:
    known = state.get("backbone_sha256")
    if known is not None and not torch.equal(known.cpu(), model.backbone_sha256.cpu()):
        raise RuntimeError("the backbone is not the one that it was trained with")
