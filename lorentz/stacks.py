"""Transformer layers one after another, with the norm that ends them, caches and recomputation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention_base import TokenCache
from .cache import LorentzCache
from .flat import Euclidean
from .geometry import geometry_of
from .manifold import Lorentz
from .transformer import LorentzTransformerDecoderLayer, LorentzTransformerEncoderLayer

__all__ = ["LorentzTransformerDecoder", "LorentzTransformerEncoder"]


class _Stack(nn.Module):
    """Layers and a last norm.

    Attributes
    ----------
    gradient_checkpointing : bool. In training, compute the layers anew in the backward pass instead of keeping what they
        stored: less memory, a third more time.
    """

    gradient_checkpointing: bool

    def __init__(
        self,
        kind: Callable[..., nn.Module],
        num_layers: int,
        dim: int,
        num_heads: int,
        dim_feedforward: int | None,
        *,
        manifold: Lorentz | Euclidean,
        norm: str,
        eps: float,
        **options: Any,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers is at least 1, got {num_layers}")
        self.dim, self.num_layers = dim, num_layers
        self.manifold = manifold
        self.layers = nn.ModuleList(
            kind(dim, num_heads, dim_feedforward, manifold=manifold, norm=norm, eps=eps, **options)
            for _ in range(num_layers)
        )
        self.norm = geometry_of(manifold).norm(dim, eps=eps) if norm == "pre" else None
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Callable[..., Any] = partial(checkpoint, use_reentrant=False)

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return f"num_layers={self.num_layers}, dim={self.dim}"

    def _run(
        self,
        x: Tensor,
        *others: Tensor,
        each: Sequence[dict[str, Any]],
        seen: dict[str, list[Any]] | None,
        **options: Any,
    ) -> Tensor:
        """Through all layers; `each` are options of one layer, `seen` takes the points and the weights."""
        again = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if again and any(value is not None for own in each for value in own.values()):
            raise ValueError("layers that are computed again would fill a cache twice; train without caches")
        for layer, own in zip(self.layers, each, strict=True):
            if seen is not None:
                seen["hidden_states"].append(x)
            call = partial(layer, **own, **options)
            result = self._gradient_checkpointing_func(call, x, *others) if again else call(x, *others)
            x, *found = result if isinstance(result, tuple) else (result,)
            if seen is not None and found:
                seen["attentions"].append(found[0])
                seen["cross_attentions"].extend(found[1:])
        x = x if self.norm is None else self.norm(x)
        if seen is not None:
            seen["hidden_states"].append(x)
        return x

    def _caches(self, caches: Sequence[Any] | None) -> Sequence[Any]:
        if caches is not None and len(caches) != self.num_layers:
            raise ValueError(
                f"got {len(caches)} caches for {self.num_layers} layers; new_cache(...) gives one for each layer"
            )
        return [None] * self.num_layers if caches is None else caches


class LorentzTransformerEncoder(_Stack):
    """Encoder layers one after another; with ``norm="pre"`` a norm follows the last.

    Parameters
    ----------
    num_layers : int, >= 1
    dim, num_heads, dim_feedforward, manifold, norm, eps, options : of every layer, as in
        :class:`LorentzTransformerEncoderLayer`

    Attributes
    ----------
    layers : ModuleList of :class:`LorentzTransformerEncoderLayer`
    gradient_checkpointing : bool. In training, compute the layers anew in the backward pass instead of keeping what they
        stored: less memory, more time.

    Examples
    --------
    >>> encoder = LorentzTransformerEncoder(2, 17, 4, manifold=Lorentz(k=1.0))
    >>> encoder(encoder.manifold.origin(2, 5, 17)).shape
    torch.Size([2, 5, 17])
    """

    def __init__(
        self,
        num_layers: int,
        dim: int,
        num_heads: int,
        dim_feedforward: int | None = None,
        *,
        manifold: Lorentz | Euclidean,
        norm: str = "pre",
        eps: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(
            LorentzTransformerEncoderLayer,
            num_layers,
            dim,
            num_heads,
            dim_feedforward,
            manifold=manifold,
            norm=norm,
            eps=eps,
            **options,
        )

    def new_cache(self, batch: int, max_length: int) -> list[LorentzCache]:
        """Empty caches of all layers, for causal use: `batch` sequences of at most `max_length` tokens."""
        layers: Any = self.layers
        return [layer.attention.new_cache(batch, max_length) for layer in layers]

    def forward(
        self,
        x: Float[Tensor, "*batch s dim"],
        *,
        caches: Sequence[TokenCache] | None = None,
        seen: dict[str, list[Any]] | None = None,
        **options: Any,
    ) -> Float[Tensor, "*batch s dim"]:
        """Points (..., S, dim) to points (..., S, dim), on the hyperboloid.

        Parameters
        ----------
        caches : one for each layer, as ``new_cache`` makes them
        seen : dict of lists. ``"hidden_states"`` gets the points before every layer and the result; ``"attentions"`` the
            weights, with ``need_weights=True``.
        options : masks and ``need_weights``, as in :class:`LorentzTransformerEncoderLayer`
        """
        return self._run(x, each=[{"cache": cache} for cache in self._caches(caches)], seen=seen, **options)


class LorentzTransformerDecoder(_Stack):
    """Decoder layers one after another; with ``norm="pre"`` a norm follows the last.

    Parameters
    ----------
    num_layers : int, >= 1
    dim, num_heads, dim_feedforward, manifold, norm, eps, options : of every layer, as in
        :class:`LorentzTransformerDecoderLayer`

    Attributes
    ----------
    layers : ModuleList of :class:`LorentzTransformerDecoderLayer`
    gradient_checkpointing : bool, as in :class:`LorentzTransformerEncoder`

    Examples
    --------
    >>> decoder = LorentzTransformerDecoder(2, 17, 4, manifold=Lorentz(k=1.0))
    >>> origin = decoder.manifold.origin
    >>> decoder(origin(2, 5, 17), origin(2, 3, 17)).shape
    torch.Size([2, 5, 17])
    """

    takes_points: tuple[str, ...] = ("x", "memory")

    def __init__(
        self,
        num_layers: int,
        dim: int,
        num_heads: int,
        dim_feedforward: int | None = None,
        *,
        manifold: Lorentz | Euclidean,
        norm: str = "pre",
        eps: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(
            LorentzTransformerDecoderLayer,
            num_layers,
            dim,
            num_heads,
            dim_feedforward,
            manifold=manifold,
            norm=norm,
            eps=eps,
            **options,
        )

    def new_cache(self, batch: int, max_length: int, memory_length: int) -> list[tuple[LorentzCache, LorentzCache]]:
        """Empty caches of all layers, each for tokens and for a memory of `memory_length`."""
        layers: Any = self.layers
        return [
            (layer.attention.new_cache(batch, max_length), layer.cross_attention.new_cache(batch, memory_length))
            for layer in layers
        ]

    def forward(
        self,
        x: Float[Tensor, "*batch s dim"],
        memory: Float[Tensor, "*batch t memory_dim"],
        *,
        caches: Sequence[tuple[TokenCache, TokenCache]] | None = None,
        seen: dict[str, list[Any]] | None = None,
        **options: Any,
    ) -> Float[Tensor, "*batch s dim"]:
        """Points (..., S, dim) and a memory (..., T, dim) to points (..., S, dim), on the hyperboloid.

        Parameters
        ----------
        caches : one pair for each layer, as ``new_cache`` makes them
        seen : dict of lists. ``"hidden_states"`` gets the points before every layer and the result; ``"attentions"`` and
            ``"cross_attentions"`` the weights, with ``need_weights=True``.
        options : masks and ``need_weights``, as in :class:`LorentzTransformerDecoderLayer`
        """
        pairs = [pair or (None, None) for pair in self._caches(caches)]
        each = [{"cache": own, "memory_cache": theirs} for own, theirs in pairs]
        return self._run(x, memory, each=each, seen=seen, **options)
