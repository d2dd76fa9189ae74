"""How tokens of a delta come before the keys of an attention, without a change of any token's position."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import DeltaError, required
from .hosts import Place
from .precision import in_dtype_of
from .replicas import Joint

__all__ = ["AttentionPart", "Tokens"]

_KNOWN = ("sdpa", "eager")
_PREFIX = "deltas-"  # of the attention implementations that look for parts, as transformers names them


class Tokens(NamedTuple):
    """Free coordinates of n tokens' keys and values, (n, size) or (batch, n, size), size over all heads.

    Without a gate they join the keys in one softmax. With a gate, broadcast to the result (batch, S, size), they have a
    softmax of their own, whose mean times the gate is added to the result: a gate of 0 changes nothing.
    """

    key: Tensor
    value: Tensor
    gate: Tensor | None = None


class AttentionPart(nn.Module):
    """A part of an attention layer: it gives tokens.

    Attributes
    ----------
    reads_input : class attribute; whether :meth:`tokens` needs the layer's input
    gated : class attribute; whether :meth:`tokens` gives a gate, so that no other tokens may be in the layer
    """

    reads_input = False
    gated = False

    def tokens(self, x: Tensor | None) -> Tokens:
        """Tokens, given the input (batch, S, dim) of the layer if ``reads_input``, else None."""
        raise NotImplementedError


class Junction(Joint):
    """Child ``deltas`` of an attention layer, that holds the parts of all deltas there."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[AttentionPart] = []
        self.seen: Tensor | None = None
        self.asked = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a pickled model, which may be read where no delta was attached yet."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if "guard" in self.__dict__:  # of transformers' attention, not of ours
            _register()

    def look(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the layer's input for the parts that read it: a forward pre-hook."""
        if self.active:
            self.seen = args[0] if args else kwargs["hidden_states"]

    def confirm(self, module: nn.Module, args: Any, output: Any) -> None:
        """Refuse to go on where the layer did not ask for the tokens: a forward hook."""
        if self.active and not self.asked:
            raise DeltaError(
                "an attention layer did not see the tokens of its delta: the model's attention implementation was changed "
                "after attaching, here or through a configuration that two models share. Detach and attach the delta again"
            )
        self.asked = False

    def tokens(self, x: Tensor | None) -> Tokens:
        """Tokens of all parts."""
        found = [part.tokens(x if x is None else in_dtype_of(part, x)) for part in self.active]
        if len(found) == 1:
            key, value, gate = found[0]
            coarser = gate is not None and x is not None and not torch.is_autocast_enabled(x.device.type)
            return Tokens(key, value, gate.to(x.dtype) if coarser else gate)  # type: ignore[union-attr]
        if any(tokens.gate is not None for tokens in found):
            raise DeltaError("tokens with a gate and other tokens in one attention layer: disable one of the deltas")
        rows = max(tokens.key.ndim for tokens in found)
        if rows == 3:
            batch = next(tokens.key.shape[0] for tokens in found if tokens.key.ndim == 3)
            found = [Tokens(*(t.expand(batch, *t.shape[-2:]) for t in tokens[:2])) for tokens in found]
        return Tokens(torch.cat([t.key for t in found], -2), torch.cat([t.value for t in found], -2))


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    implementation: str,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention function of transformers that lets every query see the tokens of the layer's parts."""
    inner: Any = _function(module, implementation)
    plain: tuple[Tensor, Tensor | None]
    junction = module._modules.get("deltas")
    if not isinstance(junction, Junction) or not junction.active:
        plain = inner(module, query, key, value, attention_mask, **options)
        return plain
    tokens = junction.tokens(junction.seen)
    junction.seen, junction.asked = None, True
    pk, pv = _split(tokens.key, key), _split(tokens.value, key)
    if tokens.gate is not None:
        out, weights = inner(module, query, key, value, attention_mask, **options)
        extra, _ = inner(module, query, pk, pv, None, **{**options, "is_causal": False, "position_bias": None})
        gate = tokens.gate.to(out)
        if gate.ndim >= 2:  # broadcast over the heads
            gate = gate.reshape(*gate.shape[:-1], 1, gate.shape[-1])
        return out + gate * extra, weights
    n, s, t = pk.shape[-2], query.shape[2], key.shape[2]
    mask = attention_mask
    if mask is None and _causal(module, query, options):
        # Without a mask transformers leaves causality to SDPA, which aligns the first query with the first key: a static
        # cache has empty places behind the last one.
        mask = torch.ones(1, 1, s, t, dtype=torch.bool, device=key.device).tril()
        if implementation == "eager":
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    if mask is None:
        options["is_causal"] = False
    else:
        mask = F.pad(mask.expand(*mask.shape[:-1], t), (n, 0), value=True if mask.dtype == torch.bool else 0.0)
    bias = options.get("position_bias")
    if bias is not None:
        options["position_bias"] = F.pad(bias, (n, 0))
    plain = inner(module, query, torch.cat([pk, key], 2), torch.cat([pv, value], 2), mask, **options)
    return plain


def _split(tokens: Tensor, key: Tensor) -> Tensor:
    """Tokens (n, size) or (batch, n, size) as the keys are: (batch, heads, n, head_size)."""
    batch, heads, _, size = key.shape
    tokens = tokens.to(key).view(*tokens.shape[:-1], heads, size).transpose(-3, -2)
    return tokens.expand(batch, *tokens.shape[-3:])


def _causal(module: nn.Module, query: Tensor, options: dict[str, Any]) -> bool:
    causal = options.get("is_causal")
    return query.shape[2] > 1 and bool(getattr(module, "is_causal", True) if causal is None else causal)


def _function(module: nn.Module, implementation: str) -> Callable[..., Any]:
    if implementation == "eager":  # every model has its own
        function: Callable[..., Any] = sys.modules[type(module).__module__].__dict__["eager_attention_forward"]
        return function
    from transformers import AttentionInterface

    known: Any = AttentionInterface()  # type: ignore[no-untyped-call]
    named: Callable[..., Any] = known[implementation]
    return named


def _see_parts(config: Any, path: str) -> None:
    """Make the layers of a configuration look for parts."""
    current = config._attn_implementation
    if not current.startswith(_PREFIX):
        _require_known(config, path)
        _register()
        config._attn_implementation = _PREFIX + current


def _require_known(config: Any, path: str) -> None:
    """Refuse an attention implementation that cannot look for parts."""
    current = str(config._attn_implementation)
    if current.removeprefix(_PREFIX) not in _KNOWN:
        raise DeltaError(
            f"{path} uses the attention implementation {current!r}; tokens before the keys work with 'sdpa' and 'eager': "
            f"call model.set_attn_implementation('sdpa') first"
        )


def _register() -> None:
    """Make our attention implementations known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    masks: Any = AttentionMaskInterface()  # type: ignore[no-untyped-call]
    for current in _KNOWN:
        AttentionInterface.register(_PREFIX + current, partial(attend, implementation=current))
        AttentionMaskInterface.register(_PREFIX + current, masks[current])


def _is_lorentz(module: nn.Module) -> bool:
    return hasattr(module, "prefix") and hasattr(module, "head_size")


def attention_size(module: nn.Module, keys: int | None, place: Place) -> tuple[int, int]:
    """Free coordinates of the keys and values of an attention layer, over all heads; twice the same number.

    `keys` is what the layer that makes the keys says; None where they are made in one layer with the queries, among them.
    """
    if _is_lorentz(module):
        layer: Any = module
        n = layer.num_heads * layer.head_size
        return n, n
    if not hasattr(module, "config") or "eager_attention_forward" not in sys.modules[type(module).__module__].__dict__:
        raise DeltaError(
            f"{place.path} is a {type(module).__name__}, which takes no tokens before its keys: it is no layer of "
            "lorentz and does not use transformers' attention interface"
        )
    config: Any = module.config
    _require_known(config, place.path)
    if keys is None:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        keys = heads * size
    return keys, keys


def insert(host: Any, key: str, part: nn.Module, place: Place) -> None:
    """Put a part into an attention layer under `key`."""
    part = required(part, AttentionPart, "attention")
    junction = host._modules.get("deltas")
    if not isinstance(junction, Junction):
        junction = Junction()
        if _is_lorentz(host):
            if host.prefix is not None:
                raise DeltaError(
                    f"{place.path} has an attention.prefix of its own, whose place the delta's tokens would take: set it "
                    "to None first, or add the tokens to what it returns instead of attaching a delta"
                )
            host.prefix = junction.tokens
        else:
            _see_parts(host.config, place.path)
            junction.__dict__["guard"] = host.register_forward_hook(junction.confirm)
        host.add_module("deltas", junction)
    if part.reads_input and not _is_lorentz(host):
        part.__dict__["hook"] = host.register_forward_pre_hook(junction.look, with_kwargs=True)
    junction.add_module(key, part)
    switch(host, key, True)


def remove(host: Any, key: str) -> None:
    """Take a part out; with the last one the layer is what it was."""
    switch(host, key, False)
    junction = host._modules["deltas"]
    part = junction._modules.pop(key)
    if hook := part.__dict__.pop("hook", None):
        hook.remove()
    if not any(True for _ in junction.children()):
        del host._modules["deltas"]
        if guard := junction.__dict__.pop("guard", None):
            guard.remove()
        if _is_lorentz(host):
            host.__dict__.pop("prefix", None)


def release(model: nn.Module) -> None:
    """Give a model whose attention layers hold no parts any more its own attention implementation back."""
    if any(isinstance(module, Junction) for module in model.modules()):
        return
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        current = getattr(config, "_attn_implementation", None)
        if isinstance(current, str) and current.startswith(_PREFIX):
            config._attn_implementation = current.removeprefix(_PREFIX)


def switch(host: Any, key: str, on: bool) -> None:
    """Let a part act, or not."""
    junction = host._modules["deltas"]
    part = junction._modules[key]
    wanted = {id(p) for p in junction.active if p is not part} | ({id(part)} if on else set())
    junction.active = [p for p in junction.children() if id(p) in wanted]
    if _is_lorentz(host):
        host.prefix = junction.tokens if junction.active else None
