"""SparseAdapter: any delta with a share of its matrices pruned at the start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..base import Delta, Site
from ..errors import DeltaError, lookup
from ..handle import Handle
from ..hosts import Host
from ..space import Space
from .adapter import Adapter

__all__ = ["SCORES", "SparseAdapter", "prune"]

SCORES = ("snip", "magnitude", "random")
PROBE = 1e-3  # deviation of what stands for matrices of zeros while they are scored
SIZES = ("bottleneck", "rank", "length")


@dataclass(frozen=True, kw_only=True)
class SparseAdapter(Delta):
    r"""SparseAdapter: of every matrix of a delta only a share is kept, chosen once, before training; the rest is 0.

    The share kept of a matrix is that of the highest scores in it: :math:`|\theta\, \partial L / \partial \theta|` for
    ``"snip"``, :math:`|\theta|` for ``"magnitude"``, a random number for ``"random"``. SNIP needs data: call
    :func:`deltas.prune` between ``attach`` and training; until then the choice by magnitude stands in, and a forward pass in
    training mode is refused.

    A matrix that is 0 at the start (an adapter's U) has no scores, and the other one (D) has none by SNIP, because no
    gradient passes it. For the scores alone U is therefore a small random matrix. To first order the scores of U and of D
    are proportional to its size, and they are compared within a matrix, so what is kept does not depend on that size.
    Training starts at 0 as before.

    Kept entries are stored and trained as one vector a matrix, beside their indices: the delta trains and counts
    :math:`(1 - s) n` parameters for n, and nothing outside of them has a gradient or is in a file. Vectors (biases, scales)
    are kept whole.

    Parameters
    ----------
    inner : a delta; by name, or ``{"method": name, "config": options}``, as files and the command line have it
    sparsity : float in [0, 1). s.
    score : str, one of ``SCORES``
    large : bool. Large-Sparse: the inner delta's bottleneck, rank or length r becomes r / (1 - s), so that the number of
        trained parameters is about that of the dense delta of size r.
    batches : int, >= 1. Batches that :func:`deltas.prune` sums the gradient over.

    References
    ----------
    He et al., "SparseAdapter", Findings of EMNLP 2022, sections 3.1 and 3.3; Lee et al., "SNIP", ICLR 2019, equation 6.
    """

    inner: Any = field(default_factory=lambda: Adapter(bottleneck=48))
    sparsity: float = 0.5
    score: str = "snip"
    large: bool = False
    batches: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1 or self.batches < 1:
            raise DeltaError(
                f"SparseAdapter takes a sparsity in [0, 1) and batches >= 1, got {self.sparsity} and {self.batches}"
            )
        lookup(dict.fromkeys(SCORES), self.score, kind="score")
        inner = _delta(self.inner)
        if isinstance(inner, SparseAdapter):
            raise DeltaError("the inner delta of a SparseAdapter is sparse already")
        if inner.layers is not None and self.layers is not None:
            raise DeltaError("layers are given twice: of the SparseAdapter and of the inner delta")
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "exact", inner.exact)
        _ = self.dense

    @property
    def dense(self) -> Delta:
        """The delta before anything is pruned, enlarged if ``large``."""
        inner: Delta = self.inner
        changes: dict[str, Any] = {} if self.layers is None else {"layers": self.layers}
        if self.large:
            name = next((name for name in SIZES if isinstance(getattr(inner, name, None), int)), None)
            if name is None:
                raise DeltaError(f"large=True needs a delta with one of {', '.join(SIZES)}; {inner.name} has none")
            changes[name] = round(getattr(inner, name) / (1 - self.sparsity))
        return replace(inner, **changes)

    def config(self) -> dict[str, Any]:
        """Options, the inner delta by name and options."""
        return {**super().config(), "inner": {"method": self.inner.name, "config": self.inner.config()}}

    def sites(self, host: Host) -> list[Site]:
        """Those of the inner delta.

        Raises
        ------
        DeltaError : the inner delta trains parameters of the backbone, which are not 0 where they are pruned.
        """
        found = self.dense.sites(host)
        if any(site.kind == "parameters" for site in found):
            raise DeltaError(f"{self.inner.name} trains parameters of the backbone itself: there is nothing to prune")
        return found

    def shared(self, host: Host, sites: list[Site]) -> nn.Module | None:
        """What the parts of the inner delta share, pruned."""
        module = self.dense.shared(host, sites)
        return None if module is None else self._sparse(module)

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """The inner part, pruned."""
        return self._sparse(self.dense.build(site, space, shared))

    def merged_weight(self, site: Site) -> Tensor | None:
        """As the inner delta's."""
        return self.dense.merged_weight(site)

    def merged_bias(self, site: Site) -> Tensor | None:
        """As the inner delta's."""
        return self.dense.merged_bias(site)

    def _sparse(self, part: nn.Module) -> nn.Module:
        for module in list(part.modules()):
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.ndim > 1 and not isinstance(module, parametrize.ParametrizationList):
                    mask = _Mask(parameter.detach(), self.sparsity, self.score)
                    parametrize.register_parametrization(module, name, mask, unsafe=True)
        return part


def _delta(inner: Any) -> Delta:
    from ..spec import from_config, parse

    if isinstance(inner, Delta):
        return inner
    found = (
        parse(inner) if isinstance(inner, str) else from_config([dict(inner)]) if isinstance(inner, Mapping) else None
    )
    if not isinstance(found, Delta):
        raise DeltaError(f"inner is one delta, such as deltas.Adapter(bottleneck=48), its name, or both; got {inner!r}")
    return found


class _Mask(nn.Module):
    """Makes a matrix of the entries of it that are kept.

    Attributes
    ----------
    index : where they are, row by row
    chosen : whether they are chosen for good
    start : the whole matrix as it was drawn, until then
    probe : what stands for the matrix while it is scored
    """

    index: Tensor
    chosen: Tensor
    start: Tensor | None

    def __init__(self, start: Tensor, sparsity: float, score: str) -> None:
        super().__init__()
        self.shape, self.kept = start.shape, max(1, round(start.numel() * (1 - sparsity)))
        self.probe: Tensor | None = None
        self.settled = score != "snip"
        scores = torch.rand_like(start) if score == "random" else _probe(start).abs()
        self.register_buffer("index", self._best(scores))
        self.register_buffer("chosen", torch.tensor(self.settled))
        self.register_buffer("start", None if self.settled else start.clone(), persistent=False)

    def _best(self, scores: Tensor) -> Tensor:
        return scores.flatten().topk(self.kept).indices.sort().values

    def right_inverse(self, dense: Tensor) -> Tensor:
        """The entries that are kept of a matrix."""
        return dense.flatten()[self.index]

    def forward(self, values: Tensor) -> Tensor:
        """The matrix: 0 where nothing is kept."""
        if self.probe is not None:
            return self.probe
        if self.training and not self.settled:
            self.settled = bool(self.chosen)  # a stored delta brings its choice with it
            if not self.settled:
                raise DeltaError(
                    "this SparseAdapter has score='snip' and has not seen data: call deltas.prune(handle, loss) before "
                    "training"
                )
        dense = values.new_zeros(self.shape.numel()).index_put((self.index,), values)
        return dense.view(self.shape)

    @torch.no_grad()
    def choose(self, scores: Tensor, values: Tensor) -> None:
        """Keep the highest scores; `values` takes what the matrix was there."""
        assert self.start is not None
        self.index.copy_(self._best(scores))
        values.copy_(self.right_inverse(self.start))
        self.chosen.fill_(True)
        self.settled, self.start = True, None


def _probe(start: Tensor) -> Tensor:
    """The matrix, or a random one where it is 0."""
    return start.clone() if start.is_meta or start.any() else torch.randn_like(start) * PROBE


def prune(handle: Handle, loss: Callable[[], Tensor]) -> None:
    """Choose what a ``SparseAdapter(score="snip")`` keeps, once, before it is trained and before its optimiser is made.

    Parameters
    ----------
    handle : of the delta
    loss : called without arguments once for each of the method's ``batches``; returns the loss of the next batch, a scalar

    Raises
    ------
    DeltaError : the delta has nothing to choose, it is chosen already, or the loss depends on no number of it.

    Examples
    --------
    >>> import deltas
    >>> model = nn.ModuleDict({"q": nn.Linear(4, 4)})
    >>> spec = deltas.SparseAdapter(inner=deltas.LoRA(rank=2, roles=("q",)))
    >>> handle = deltas.attach(model, spec, host={"q": "q"})
    >>> deltas.prune(handle, lambda: model["q"](torch.ones(1, 4)).square().sum())
    """
    masks = _masks(handle)
    batches = max(site.method.batches for site in handle.sites if isinstance(site.method, SparseAdapter))
    probes = [_probe(_start(mask)).requires_grad_(True) for mask, _ in masks]
    totals = [torch.zeros_like(probe) for probe in probes]
    try:
        for (mask, _), probe in zip(masks, probes, strict=True):
            mask.probe = probe
        for _ in range(batches):
            gradients = torch.autograd.grad(loss(), probes, allow_unused=True)
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total.add_(gradient)
    finally:
        for mask, _ in masks:
            mask.probe = None
    if not any(total.any() for total in totals):
        raise DeltaError("the loss depends on no number of this delta, so there is nothing to choose by")
    for (mask, values), probe, total in zip(masks, probes, totals, strict=True):
        mask.choose((probe * total).abs(), values)
    handle.restart()


def _masks(handle: Handle) -> list[tuple[_Mask, Tensor]]:
    """Masks that are to be chosen and the entries that they keep; shared ones once."""
    found: dict[int, tuple[_Mask, Tensor]] = {}
    for site in handle.sites:
        for module in site.part.modules() if site.part is not None else ():
            if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], _Mask):
                found[id(module)] = (module[0], module.original)
    if not found:
        raise DeltaError(f"{handle.spec.name} has nothing to prune: attach a SparseAdapter")
    if any(bool(mask.chosen) for mask, _ in found.values()):
        raise DeltaError(
            "what this SparseAdapter keeps is chosen already; only score='snip' is chosen by data, and once"
        )
    return list(found.values())


def _start(mask: _Mask) -> Tensor:
    assert mask.start is not None
    return mask.start
