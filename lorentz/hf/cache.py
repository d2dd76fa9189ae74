"""The caches of transformers as caches of one attention layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import Seq2SeqLMOutput

__all__ = ["CACHE", "LayerCache", "layer_caches", "new_cache", "one_cache"]

# Name of the cache in what models return: transformers renamed it in 5.24.
CACHE = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"


class LayerCache:
    """Keys and values of one layer in a cache of transformers; see :class:`lorentz.attention_base.TokenCache`.

    Parameters
    ----------
    both : EncoderDecoderCache
    layer : int
    fixed : bool. Whether it is that of the memory.
    """

    def __init__(self, both: Any, layer: int, *, fixed: bool) -> None:
        self.both, self.layer, self.fixed = both, layer, fixed
        self.cache = both.cross_attention_cache if fixed else both.self_attention_cache

    @property
    def length(self) -> int | Tensor:
        """Tokens stored, as of now: a static cache gives a tensor that it counts on."""
        length: int | Tensor = self.cache.get_seq_length(self.layer)
        length = length.clone() if isinstance(length, Tensor) else length
        return length if not self.fixed or self.both.is_updated.get(self.layer) else 0

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values stored so far."""
        stored = self.cache.layers[self.layer]
        return stored.keys, stored.values

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the points of new tokens and return all stored so far."""
        if self.fixed:
            self.both.is_updated[self.layer] = True
        both: tuple[Tensor, Tensor] = self.cache.update(key, value, self.layer)
        return both


def one_cache(past_key_values: Any, cache: Any) -> Any:
    """The cache that was given by either name.

    Raises
    ------
    ValueError : by both.
    """
    if past_key_values is not None and cache is not None:
        raise ValueError("past_key_values and cache are two names of one thing, give one of them")
    found = past_key_values if cache is None else cache
    if found is not None and not hasattr(found, "self_attention_cache"):  # of a decoder alone: it takes the tokens
        return EncoderDecoderCache(found, DynamicCache())
    return found


def new_cache() -> Any:
    """Empty cache that grows with what is stored."""
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


def layer_caches(cache: Any, layers: int) -> list[tuple[LayerCache, LayerCache]]:
    """Caches of every layer, for its tokens and for its memory."""
    return [(LayerCache(cache, i, fixed=False), LayerCache(cache, i, fixed=True)) for i in range(layers)]
