"""Layers of a transformer: residuals enter linear maps as addends, so that every result is a point."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .attention_base import TokenCache
from .flat import Euclidean
from .geometry import geometry_of
from .linear import VARIANTS
from .manifold import Lorentz

__all__ = ["NORMS", "LorentzTransformerDecoderLayer", "LorentzTransformerEncoderLayer"]

NORMS = ("pre", "post", "none")


class _Block(nn.Module):
    """What both layers have: attention to themselves, a feed-forward map, and norms around each."""

    attentions = 1

    def __init__(
        self,
        dim: int,
        num_heads: int,
        dim_feedforward: int | None = None,
        *,
        manifold: Lorentz | Euclidean,
        norm: str = "pre",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        variant: str = "unbounded",
        bias: bool = True,
        eps: float = 1e-5,
        rotary_base: float | None = None,
        attention_logits: str = "distance",
    ) -> None:
        super().__init__()
        geometry = geometry_of(manifold)
        hidden = 4 * (dim - 1) + 1 if dim_feedforward is None else dim_feedforward
        if hidden < 2:
            raise ValueError(f"dim_feedforward counts the time axis and is at least 2, got {hidden}")
        if norm not in NORMS:
            raise ValueError(f"norm is one of {', '.join(map(repr, NORMS))}; got {norm!r}")
        if variant not in VARIANTS:
            raise ValueError(f"variant is one of {', '.join(map(repr, VARIANTS))}; got {variant!r}")
        self.dim, self.num_heads, self.norm, self.variant = dim, num_heads, norm, variant
        self.dim_feedforward = geometry.hidden_size(dim, hidden, attentions=self.attentions)
        self.manifold, self._geometry = manifold, geometry
        options = {"dropout": attention_dropout, "out_dropout": dropout, "bias": bias, "logits": attention_logits}
        self.attention = geometry.attention(dim, num_heads, rotary_base=rotary_base, **options)
        self.cross_attention = geometry.attention(dim, num_heads, **options) if self.attentions == 2 else None
        self.up = geometry.linear(dim, self.dim_feedforward, bias=bias, variant=variant)
        self.down = geometry.linear(self.dim_feedforward, dim, bias=bias, activation=activation, dropout=dropout)
        count = 0 if norm == "none" else self.attentions + 1
        self.norms = nn.ModuleList(geometry.norm(dim, eps=eps) for _ in range(count))

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return f"dim={self.dim}, num_heads={self.num_heads}, dim_feedforward={self.dim_feedforward}, norm={self.norm!r}"

    def _check(self, **points: Tensor) -> None:
        size = self.dim - 1 + self._geometry.time_axes
        for name, x in points.items():
            if x.shape[-1] != size:
                raise ValueError(
                    f"{type(self).__name__} expects points of {size} coordinates, and got a {name} of {x.shape[-1]}. "
                    f"Features of size {self.dim - 1} become points by manifold.lift."
                )

    def _before(self, index: int, x: Tensor) -> Tensor:
        return self.norms[index](x) if self.norm == "pre" else x

    def _after(self, index: int, x: Tensor) -> Tensor:
        return self.norms[index](x) if self.norm == "post" else x

    def _feed_forward(self, index: int, x: Tensor) -> Tensor:
        hidden = self.up(self._before(index, x))
        return self._after(index, self.down(hidden, addend=self._geometry.space_of(x)))


class LorentzTransformerEncoderLayer(_Block):
    r"""Attention and a feed-forward map, each with a residual: a transformer layer whose every result is a point.

    With :math:`L(x;\, a)` a ``LorentzLinear`` with the addend a, A the attention and N the norm (or nothing),

    .. math:: y = A(N x;\ x_s), \qquad
              z = L_2(\phi(L_1(N y)_s);\ y_s) \qquad \text{(norm = "pre")}.

    The residual joins the space coordinates of the last map before it is lifted, and nothing else is ever added to points.
    Maps that a residual enters are ``"unbounded"``: the others keep the direction of a sum and lose its length. All are
    centred, so at first the space coordinates are those of an ordinary transformer.

    Parameters
    ----------
    dim : int, >= 2. Size of a point, one time axis included.
    num_heads : int, divides ``dim - 1``
    dim_feedforward : int, >= 2, of the hidden points, time axis included; ``4 * (dim - 1) + 1`` if None
    manifold : Lorentz, of input and result; or ``lorentz.flat.Euclidean()``, which gives the flat twin: the same layer with
        ``dim - 1`` coordinates, whose hidden layer is as much larger as makes up for the time columns
    norm : str, ``"pre"`` (trains at any depth, and needs a norm after the last layer), ``"post"`` or ``"none"`` (the
        paper's, for a few layers)
    dropout : float in [0, 1), on the space coordinates before the output map of the attention and before the second map
    attention_dropout : float in [0, 1), on the attention weights
    activation : callable on the space coordinates of the hidden points
    variant : str, of the first feed-forward map; see :class:`LorentzLinear`
    bias : bool, of all linear maps
    eps : float, of the norms
    rotary_base : float or None; see :class:`LorentzMultiheadAttention`
    attention_logits : str, ``"distance"`` or ``"relative"``; its ``logits``

    References
    ----------
    Chen et al., "Fully Hyperbolic Neural Networks", ACL 2022, section 3.3; Xiong et al., "On Layer Normalization in the
    Transformer Architecture", ICML 2020.

    Examples
    --------
    >>> layer = LorentzTransformerEncoderLayer(17, 4, manifold=Lorentz(k=1.0))
    >>> layer(layer.manifold.origin(2, 5, 17)).shape
    torch.Size([2, 5, 17])
    """

    def forward(
        self,
        x: Float[Tensor, "*batch s dim"],
        *,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        cache: TokenCache | None = None,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Points (..., S, dim) to points (..., S, dim), on the hyperboloid.

        Parameters
        ----------
        attn_mask, key_padding_mask, is_causal, cache : as in ``LorentzMultiheadAttention``. True is a token.
        need_weights : bool. Return (result, attention weights (..., num_heads, S, T)).
        """
        self._check(x=x)
        y = self.attention(
            self._before(0, x),
            attn_mask=attn_mask,
            key_padding_mask=key_padding_mask,
            is_causal=is_causal,
            cache=cache,
            need_weights=need_weights,
            addend=self._geometry.space_of(x),
        )
        y, w = y if need_weights else (y, None)
        y = self._feed_forward(1, self._after(0, y))
        return y if w is None else (y, w)


class LorentzTransformerDecoderLayer(_Block):
    """Attention to earlier tokens, attention to a memory, and a feed-forward map, each with a residual.

    Parameters
    ----------
    dim, num_heads, manifold, ...
        as in :class:`LorentzTransformerEncoderLayer`; rotary positions are those of the attention to earlier tokens

    Examples
    --------
    >>> layer = LorentzTransformerDecoderLayer(17, 4, manifold=Lorentz(k=1.0))
    >>> origin = layer.manifold.origin
    >>> layer(origin(2, 5, 17), origin(2, 3, 17)).shape
    torch.Size([2, 5, 17])
    """

    attentions = 2
    takes_points: tuple[str, ...] = ("x", "memory")

    def forward(
        self,
        x: Float[Tensor, "*batch s dim"],
        memory: Float[Tensor, "*batch t memory_dim"],
        *,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = True,
        memory_mask: Tensor | None = None,
        memory_padding_mask: Tensor | None = None,
        cache: TokenCache | None = None,
        memory_cache: TokenCache | None = None,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Points (..., S, dim) and a memory (..., T, dim) to points (..., S, dim), on the hyperboloid.

        Parameters
        ----------
        attn_mask, key_padding_mask, is_causal, cache : of the attention to earlier tokens, as in
            ``LorentzMultiheadAttention``. True is a token.
        memory_mask, memory_padding_mask, memory_cache : of the attention to the memory
        need_weights : bool. Return (result, weights over tokens, weights over the memory).
        """
        self._check(x=x, memory=memory)
        space_of = self._geometry.space_of
        assert self.cross_attention is not None
        y = self.attention(
            self._before(0, x),
            attn_mask=attn_mask,
            key_padding_mask=key_padding_mask,
            is_causal=is_causal,
            cache=cache,
            need_weights=need_weights,
            addend=space_of(x),
        )
        y, own = y if need_weights else (y, None)
        y = self._after(0, y)
        z = self.cross_attention(
            self._before(1, y),
            memory,
            attn_mask=memory_mask,
            key_padding_mask=memory_padding_mask,
            cache=memory_cache,
            need_weights=need_weights,
            addend=space_of(y),
        )
        z, theirs = z if need_weights else (z, None)
        z = self._feed_forward(2, self._after(1, z))
        return z if own is None or theirs is None else (z, own, theirs)
