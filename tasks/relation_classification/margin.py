"""The similarity margin: wrong classes must stay behind the right one the more, the more alike their relations are."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from relsim.baselines import count_kl_max
from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.fit import fit
from relsim.model.warmstart import warm_start
from relsim.similarity import similarity
from tasks.data.sentences import RelationSentences
from tasks.folder import atomic_write

from .config import MarginConfig

__all__ = ["argument_facts", "class_divergence", "margin_loss", "margins"]

_HEADS = 400


def argument_facts(data: RelationSentences) -> Facts:
    """Facts (first argument, class, second argument) of the training sentences, lower case; relation ids are class ids."""
    triples = [
        (m.first.strip().lower() or "?", data.labels[int(label)], m.second.strip().lower() or "?")
        for m, label in zip(data.sentences["train"], data.label["train"], strict=True)
    ]
    facts = Facts.from_triples(triples)
    return facts.select([facts.relations.index(label) for label in data.labels])


def class_divergence(data: RelationSentences, source: str) -> Tensor:
    """Larger of the two divergences between the training facts of each two classes, (C, C) float64 in nats.

    With ``"facts"`` it is that of a fact distribution, fitted with a seed of its own and kept beside the features: it is
    the same for every run.
    """
    facts = argument_facts(data)
    if source == "counts":
        return torch.from_numpy(count_kl_max(facts))
    name = hashlib.sha256(f"{data.sha256} {_HEADS}".encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / "hyrel-features" / f"{data.name}-divergence-{name}.npy"
    found = _kept(path)
    if found is None:
        model = FactDistribution(facts.num_entities, facts.num_relations, dropout=0.2, seed=0)
        warm_start(model, facts, seed=0)
        fit(model, facts, epochs=6, seed=0, weight_decay=3.0, held_out=0.04, patience=2)
        kl = similarity(model, heads=_HEADS, seed=0).kl
        found = torch.maximum(kl, kl.T).numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.save(content, found)
        atomic_write(path, content.getvalue())
    return torch.from_numpy(found)


def _kept(path: Path) -> np.ndarray | None:
    """The array of a file, or None where it is not there or damaged."""
    try:
        found: np.ndarray = np.load(path)
        return found
    except (OSError, ValueError, EOFError):
        return None


def margins(data: RelationSentences, config: MarginConfig) -> Tensor:
    r"""Margins of every class, (C, C) float32, rows of the right class, 0 on the diagonal.

    .. math:: m_{yj} = w \frac{\exp(-D_{yj}/T)}{\sum_{i \ne y} \exp(-D_{yi}/T)}

    with w the weight, T the temperature and D the divergences; D = 0 for the source ``"uniform"``.
    """
    size = len(data.labels)
    if config.source == "none":
        return torch.zeros(size, size)
    zero = torch.zeros(size, size, dtype=torch.float64)
    divergence = zero if config.source == "uniform" else class_divergence(data, config.source)
    scaled = (-divergence / config.temperature).fill_diagonal_(-torch.inf)
    return config.weight * torch.softmax(scaled, 1).float()


def margin_loss(logits: Tensor, label: Tensor, margin: Tensor) -> Tensor:
    r"""Mean softmax loss with margins, :math:`-z_y + \log\sum_j \exp(z_j + m_{yj})`: plain softmax where they are 0.

    Parameters
    ----------
    logits : (B, C)
    label : int64 (B,)
    margin : (C, C), rows of the right class

    References
    ----------
    Chen et al., "Quantifying Similarity between Relations with Fact Distribution", ACL 2019, section 7.2.
    """
    return F.cross_entropy(logits + margin[label], label)
