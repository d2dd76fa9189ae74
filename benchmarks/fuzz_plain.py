"""The control of the fuzz: the same layers by the formulas as they are printed, on geoopt's distance and optimisers.

Points carry the time they were given, nothing is rearranged against cancellation, and nothing is reduced in float64. With
``GUARDED`` the roots get what public code puts under them: ``abs`` and ``clamp_min(1e-8)``. Norms and transforms, of which
no plain form is in use, are this library's.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import geoopt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lorentz

__all__ = ["kit"]


class PlainLorentz(lorentz.Lorentz):
    """k as in ``lorentz.Lorentz``, everything that moves or measures points as in geoopt."""

    dist = geoopt.Lorentz.dist
    dist0 = geoopt.Lorentz.dist0
    expmap = geoopt.Lorentz.expmap
    logmap = geoopt.Lorentz.logmap
    expmap0 = geoopt.Lorentz.expmap0
    logmap0 = geoopt.Lorentz.logmap0
    projx = geoopt.Lorentz.projx


def _inner(x: Tensor, y: Tensor) -> Tensor:
    product = x * y
    return product[..., 1:].sum(-1, keepdim=True) - product[..., :1]


def _lift(space: Tensor, k: Tensor) -> Tensor:
    return torch.cat([(k + (space * space).sum(-1, keepdim=True)).sqrt(), space], -1)


def _under_root(x: Tensor, guarded: bool) -> Tensor:
    return x.abs().clamp_min(1e-8) if guarded else x


class Linear(nn.Module):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        manifold: PlainLorentz,
        manifold_out: PlainLorentz | None = None,
        bias: bool = True,
        variant: str = "paper",
        activation: Callable[[Tensor], Tensor] | None = None,
        dropout: float = 0.0,
        guarded: bool = False,
    ) -> None:
        super().__init__()
        self.manifold, self.manifold_out = manifold, manifold if manifold_out is None else manifold_out
        self.variant, self.activation, self.dropout, self.guarded = variant, activation, dropout, guarded
        self.linear = nn.Linear(in_features, out_features - (variant == "unbounded"), bias=bias)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, x: Tensor, *, addend: Tensor | None = None) -> Tensor:
        k = self.manifold_out.k.to(x)
        if self.activation is not None:
            x = self.activation(x)
        z = self.linear(F.dropout(x, self.dropout, self.training)).to(x.dtype)
        if self.variant == "unbounded":
            return _lift(z if addend is None else z + addend, k)
        gate = self.log_scale.exp() * torch.sigmoid(z[..., :1])
        space = z[..., 1:] if addend is None else z[..., 1:] + addend
        squared = _under_root((space * space).sum(-1, keepdim=True), self.guarded)
        if self.variant == "paper":
            return _lift(gate * space / squared.sqrt(), k)
        time = gate + 1.1 * k.sqrt()
        return torch.cat([time, space * ((time * time - k) / squared).sqrt()], -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        manifold: PlainLorentz,
        dropout: float = 0.0,
        rotary_base: float | None = None,
        guarded: bool = False,
    ) -> None:
        super().__init__()
        self.manifold, self.heads, self.dropout, self.guarded = manifold, num_heads, dropout, guarded
        self.rotary_base = rotary_base
        self.query, self.key, self.value, self.out = (
            Linear(dim, dim, manifold=manifold, variant="unbounded") for _ in range(4)
        )
        self.scale = nn.Parameter(torch.tensor(2 * ((dim - 1) / num_heads) ** 0.5))

    def _split(self, x: Tensor, turned: bool) -> Tensor:
        space = x[..., 1:].unflatten(-1, (self.heads, -1)).transpose(1, 2)
        if turned and self.rotary_base is not None:
            space = lorentz.rotate(space, torch.arange(x.shape[1]), base=self.rotary_base)
        return _lift(space, self.manifold.k.to(x))

    def forward(
        self,
        x: Tensor,
        key: Tensor | None = None,
        *,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
        addend: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        k = self.manifold.k.to(x)
        key = x if key is None else key
        q, v = self._split(self.query(x), True), self._split(self.value(key), False)
        key = self._split(self.key(key), True)
        signed = torch.cat([-q[..., :1], q[..., 1:]], -1)
        logits = (2 * k + 2 * signed @ key.mT) / self.scale
        least = torch.finfo(logits.dtype).min / 4
        if is_causal:
            logits = logits.masked_fill(torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1), least)
        if key_padding_mask is not None:
            logits = logits.masked_fill(~key_padding_mask[:, None, None], least)
        if attn_mask is not None:
            kept = attn_mask if attn_mask.dtype == torch.bool else attn_mask > torch.finfo(attn_mask.dtype).min / 2
            logits = logits.masked_fill(~kept, least)
        weights = logits.softmax(-1)
        a = F.dropout(weights, self.dropout, self.training).to(v.dtype) @ v
        space = a[..., 1:] / _under_root(-_inner(a, a), self.guarded).sqrt() * k.sqrt()
        merged = _lift(space.transpose(1, 2).flatten(-2).to(x.dtype), k)
        y: Tensor = self.out(merged, addend=addend)
        return (y, weights) if need_weights else y


class Embedding(nn.Module):
    def __init__(
        self, num_embeddings: int, dim: int, *, manifold: PlainLorentz, padding_idx: int | None, sparse: bool
    ) -> None:
        super().__init__()
        # geoopt's dense optimisers take no sparse gradients.
        self.manifold, self.padding_idx = manifold, padding_idx
        start = manifold.lift(0.02 * torch.randn(num_embeddings, dim - 1))
        self.weight = geoopt.ManifoldParameter(start, manifold=manifold)

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight, self.padding_idx)


class Classifier(nn.Module):
    returns_points = False

    def __init__(self, dim: int, num_classes: int, *, manifold: PlainLorentz, kind: str, bias: bool) -> None:
        super().__init__()
        self.manifold, self.kind = manifold, kind
        start = (dim - 1) ** -0.5 * torch.randn(num_classes, dim - 1)
        self.weight = (
            nn.Parameter(start)
            if kind == "mlr"
            else geoopt.ManifoldParameter(manifold.lift(start).detach(), manifold=manifold)
        )
        self.bias = nn.Parameter(torch.zeros(num_classes)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        k = self.manifold.k.to(x)
        if self.kind == "prototype":
            logits = 2 * k + 2 * _inner(x.unsqueeze(-2), self.weight).squeeze(-1)
            return logits if self.bias is None else logits + self.bias
        root = k.sqrt()
        norm = self.weight.norm(dim=-1)
        a = torch.zeros_like(norm) if self.bias is None else self.bias / root
        along = torch.cosh(a) * (x[..., 1:] @ self.weight.mT) - torch.sinh(a) * norm * x[..., :1]
        return root * norm * torch.asinh(along / (root * norm))


class Edges(nn.Module):
    returns_points = False

    def __init__(self, *, manifold: PlainLorentz, learnable: bool) -> None:
        super().__init__()
        self.manifold = manifold
        self.r = nn.Parameter(torch.tensor(2.0), requires_grad=learnable)
        self.t = nn.Parameter(torch.tensor(1.0), requires_grad=learnable)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.r - self.manifold.dist(x, y) ** 2) / self.t


def kit(*, guarded: bool) -> SimpleNamespace:
    """The classes of the control under the names of this library's."""

    def with_guard(cls: type[nn.Module]) -> Callable[..., Any]:
        return lambda *args, **options: cls(*args, guarded=guarded, **options)

    return SimpleNamespace(
        name="plain formulas, guarded roots" if guarded else "plain formulas",
        Lorentz=PlainLorentz,
        Linear=with_guard(Linear),
        Attention=with_guard(Attention),
        Embedding=Embedding,
        Classifier=Classifier,
        Edges=Edges,
        optimizers={
            "RiemannianAdam": geoopt.optim.RiemannianAdam,
            "RiemannianSGD": geoopt.optim.RiemannianSGD,
            "Adam": geoopt.optim.RiemannianAdam,  # points with their time cannot be given to a plain one
        },
    )
