"""How tokens join the input of a backbone and leave its output: hooks on the modules of the way."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embeddings import EmbeddingsPart, flow_of, table_of
from .errors import DeltaError, required
from .hosts import Host
from .replicas import Joint
from .space import space_of

__all__ = ["absolute_positions", "insert", "remove", "switch"]

# Argument of an embedding layer that says where its positions begin: in transformers from 5.24 on, and before.
FIRST_POSITION = ("cache_length", "past_key_values_length")


def absolute_positions(host: Host) -> bool:
    """Whether a model adds learned positions to its words, so that a token in front changes what the others are."""
    flow = flow_of(host)
    owner = host.model.get_submodule(flow.owner)
    return bool(flow.positions) or hasattr(owner.get_submodule(flow.enter), "position_embeddings")


class Junction(Joint):
    """Child ``deltas`` of the owner, that holds the parts of all deltas there. Its methods are the hooks.

    The owner's forward takes ids, masks and positions. ``join`` lengthens them, and puts the tokens before the words where
    the owner itself looks words up; else ``embed`` puts them into the result of the embedding layer. ``part`` and ``trim``
    take them off again.
    """

    def __init__(self, owner: nn.Module, names: tuple[str, ...], path: str) -> None:
        super().__init__()
        enter, leave, positions, *layers = names
        self.active: list[EmbeddingsPart] = []
        self.path = path or type(owner).__name__
        known = inspect.signature(type(owner).forward).parameters
        self.arguments = list(known)[1:]
        entry = owner.get_submodule(enter)
        self.entry: nn.Module
        self.__dict__["entry"] = entry  # no child: the owner has it
        self.words = entry is table_of(entry)
        open_ended = any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in known.values())
        if self.words and not open_ended and not {"input_ids", "inputs_embeds"} & set(known):
            raise DeltaError(
                f"tokens join the input_ids or inputs_embeds of a call, and {self.path} takes {', '.join(self.arguments)}: "
                "give its argument that name"
            )
        self.absolute = bool(positions) or hasattr(entry, "position_embeddings")
        self.start = _start(entry)
        self.limit = _limit(owner, entry, positions)
        table_forward = type(owner.get_submodule(positions)).forward if positions else nn.Identity.forward
        # Whether positions count the tokens that are not masked.
        self.of_mask = "attention_mask" in inspect.signature(table_forward).parameters
        self.first = 1 if isinstance(getattr(entry, "cls_token", None), nn.Parameter) else 0
        self.space = space_of(entry)
        self.live = 0  # tokens in the pass that runs
        self.total = 0  # with those of the input
        self.shift = 0  # positions that the embedding layer is to move the input's tokens by
        hooks = [
            owner.register_forward_pre_hook(self.join, with_kwargs=True),
            owner.register_forward_hook(self.trim),
        ]
        if leave:
            hooks.append(owner.get_submodule(leave).register_forward_hook(self.part))
        if not self.words:
            hooks.append(entry.register_forward_pre_hook(self.move, with_kwargs=True))
            hooks.append(entry.register_forward_hook(self.embed))
        if positions:
            table = owner.get_submodule(positions)
            hooks.append(table.register_forward_pre_hook(self.cut, with_kwargs=True))
            hooks.append(table.register_forward_hook(self.pad))
        for number, name in enumerate(layers[1:], 1):
            layer = _Layer(self, number)
            self.add_module(f"layer{number}", layer)
            hooks.append(owner.get_submodule(name).register_forward_pre_hook(layer.refresh, with_kwargs=True))
        self.__dict__["hooks"] = hooks

    @property
    def parts(self) -> list[EmbeddingsPart]:
        """Parts that give tokens."""
        return [part for part in self.active if part.length]

    @property
    def shifted(self) -> bool:
        """Whether the tokens enter as words do."""
        kinds = {part.shifted for part in self.parts}
        if len(kinds) > 1:
            raise DeltaError('deltas with positions="kept" and "shifted" at one embedding layer: disable one of them')
        return kinds == {True}

    def tokens(self, x: Tensor) -> Tensor:
        """Free coordinates (batch, n, size) of all parts' tokens."""
        return torch.cat([p.tokens(x, 0).to(x).expand(x.shape[0], p.length, x.shape[-1]) for p in self.parts], 1)

    # hooks, in the order of a pass

    def join(self, owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Pre-hook of the owner: lengthen masks and positions; put tokens before words."""
        self.live = self.shift = 0
        if not self.active:
            return None
        given = {**dict(zip(self.arguments, args, strict=False)), **kwargs}
        n, extra = sum(p.length for p in self.parts), sum(p.shift for p in self.active)
        # transformers has called it cache since 5.24.
        cache = given.get("cache") if given.get("past_key_values") is None else given["past_key_values"]
        past = 0 if cache is None else cache.get_seq_length()
        if n and getattr(cache, "is_compileable", False):
            raise DeltaError(f"{self.path}: tokens of the input need a cache that grows, such as DynamicCache")
        mask = given.get("attention_mask")
        ids, x = given.get("input_ids"), given.get("inputs_embeds")
        if n:
            self._continues(given, past, n, ids if x is None else x)
        if n and mask is not None:
            given["attention_mask"] = self._mask(mask, n)
        self._fits(ids if x is None else x, extra + (n if self.shifted else 0))
        if self.words or self.shifted:
            if x is None:
                table = table_of(self.entry)
                assert table is not None
                x = table(ids)
            self._positions(given, n, extra, past, x, mask)
            if n and not past:
                if mask is None and "attention_mask" in self.arguments and self.absolute and not self.shifted:
                    # Tokens without positions of their own look like texts packed one after another where no mask is.
                    given["attention_mask"] = torch.ones(x.shape[0], n + x.shape[1], dtype=torch.int64, device=x.device)
                given["input_ids"], given["inputs_embeds"] = None, torch.cat([self.tokens(x), x], 1)
                self._types(given, n)
                self.total = n + x.shape[1]
        elif given.get("position_ids") is not None:
            given["position_ids"] = given["position_ids"] + extra
        else:
            self.shift = extra
        self.live = 0 if past else n
        return (), given

    def _fits(self, x: Tensor | None, moved: int) -> None:
        if x is not None and moved and self.limit is not None and x.shape[1] + moved > self.limit:
            raise DeltaError(
                f"{x.shape[1]} tokens moved by {moved} positions pass the {self.limit} positions of {self.path}: "
                'truncate the input, or use positions="kept"'
            )

    def _continues(self, given: dict[str, Any], past: int, n: int, x: Tensor | None) -> None:
        """Refuse a cache of which ``generate`` took our tokens for those of the text."""
        mask, positions = given.get("attention_mask"), given.get("position_ids")
        if not past or x is None or x.shape[1] == 1:  # one token is a step, and waits for no device
            return
        if mask is not None:
            taken = mask.ndim == 2 and mask.shape[1] != past - n + x.shape[1]
        else:
            taken = positions is not None and int(positions[..., 0].min()) == past
        if taken:
            raise DeltaError(
                f"{self.path} got {x.shape[1]} tokens after a cache of {past}, of which {n} are a delta's: generate() takes "
                "those for tokens of the text and leaves as many of it out. Start every turn from an empty cache, with the "
                "whole text; an assistant model of generate() cannot have this delta"
            )

    def _mask(self, mask: Tensor, n: int) -> Tensor:
        if mask.ndim == 2:
            return F.pad(mask, (n, 0), value=1)
        if self.words:
            raise DeltaError(
                f"{self.path} got an attention mask of shape {tuple(mask.shape)}; only one of (batch, length) can be "
                "lengthened by tokens of the input"
            )
        mask = F.pad(mask, (n, 0), value=0 if mask.is_floating_point() else 1)
        rows = mask.max(-2, keepdim=True).values if mask.dtype != torch.bool else mask.any(-2, keepdim=True)
        return torch.cat([rows.expand(*mask.shape[:-2], n, mask.shape[-1]), mask], -2)

    def _positions(self, given: dict[str, Any], n: int, extra: int, past: int, x: Tensor, mask: Tensor | None) -> None:
        """Positions of the input's tokens, and before them those of the delta's."""
        if "position_ids" not in self.arguments:
            return
        ids = given.get("position_ids")
        if not self.words and ids is None:
            self.shift = extra  # the embedding layer counts
            return
        if n and ids is not None and mask is None and not past and bool((ids.diff(dim=-1) < 0).any()):
            raise DeltaError(
                f"{self.path} got position_ids that begin anew, as of texts packed into one row, and tokens of a delta would "
                "stand before the first text alone: give a text a row and an attention_mask, or use PrefixTuning"
            )
        seen = max(past - n, 0)
        if ids is None and self.of_mask and mask is not None and mask.ndim == 2:
            ids = (mask.long().cumsum(-1) * mask.long() - 1)[:, seen:]
        elif ids is None:
            ids = torch.arange(x.shape[1], device=x.device)[None] + seen
        counted = self.shifted or not self.absolute
        ids = ids + extra + (n if counted else 0)
        if n and not past:
            before = torch.arange(n, device=x.device) * int(counted)
            ids = torch.cat([before.expand(*ids.shape[:-1], n), ids], -1)
        given["position_ids"] = ids

    def _types(self, given: dict[str, Any], n: int) -> None:
        types = given.get("token_type_ids")
        if types is not None and self.words:
            raise DeltaError(f"{self.path} got token_type_ids, which tokens of a delta have not")
        if types is not None:
            given["token_type_ids"] = F.pad(types, (n, 0))

    def cut(self, table: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Pre-hook of a table of positions: the delta's tokens have none."""
        if not self.live or self.shifted:
            return None
        args = (args[0][..., self.live :], *args[1:]) if args else args
        return args, {name: v[..., self.live :] if isinstance(v, Tensor) else v for name, v in kwargs.items()}

    def pad(self, table: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Hook of a table of positions: nothing is added to the delta's tokens."""
        return F.pad(output, (0, 0, self.live, 0)) if self.live and not self.shifted else None

    def move(self, entry: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Pre-hook of an embedding layer: let it count positions from a later one."""
        if not self.shift:
            return None
        assert self.start is not None, "insert() refuses such an entry"
        return args, {**kwargs, self.start: kwargs.get(self.start, 0) + self.shift}

    def embed(self, entry: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Hook of an embedding layer: put the tokens before its result (after a class token)."""
        if not self.live or self.shifted:
            return None
        x = self.space.lift(self.tokens(self.space.coordinates(output)))
        self.total = self.live + output.shape[1]
        return torch.cat([output[:, : self.first], x, output[:, self.first :]], 1)

    def part(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Hook of the encoder: take the tokens off before what reads its result, unless that is to read them."""
        return None if self.shifted else self.trim(module, args, output)

    def trim(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Hook of the owner: take the tokens off all that still has them."""
        if not self.live:
            return None
        if isinstance(output, dict):
            for key in ("last_hidden_state", "hidden_states", "attentions"):
                if output.get(key) is not None:
                    output[key] = self._without(output[key])
            return output
        return tuple(self._without(value) for value in output) if isinstance(output, tuple) else self._without(output)

    def _without(self, value: Any) -> Any:
        """States (batch, n + S, size) or rows of attentions (batch, heads, n + S, keys) of the input's tokens alone."""
        if isinstance(value, tuple):
            return tuple(self._without(one) for one in value)
        if not isinstance(value, Tensor) or value.ndim not in (3, 4) or value.shape[-2] != self.total:
            return value
        rest = value[..., self.first + self.live :, :]
        return torch.cat([value[..., : self.first, :], rest], -2) if self.first else rest


def _start(entry: nn.Module) -> str | None:
    """Argument by which an embedding layer takes its first position."""
    counts = inspect.signature(type(entry).forward).parameters
    return next((name for name in FIRST_POSITION if name in counts), None)


def _limit(owner: nn.Module, entry: nn.Module, positions: str) -> int | None:
    """Number of positions that a model has learned."""
    table: Any = owner.get_submodule(positions) if positions else getattr(entry, "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return None
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


class _Layer(nn.Module):
    """Child of a junction for one layer: its hook puts the tokens of that layer in the place of those that come to it."""

    def __init__(self, junction: Junction, number: int) -> None:
        super().__init__()
        self.__dict__["junction"] = junction
        self.number = number

    def refresh(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Pre-hook of the layer."""
        junction: Junction = self.__dict__["junction"]
        if not junction.live or not any(part.deep for part in junction.parts):
            return None
        x = args[0] if args else kwargs["hidden_states"]
        start, pieces = junction.first, [x[:, : junction.first]]
        for part in junction.parts:
            if part.deep:
                fresh = junction.space.lift(part.tokens(None, self.number).to(x))
                pieces.append(fresh.expand(x.shape[0], *fresh.shape[-2:]))
            else:
                pieces.append(x[:, start : start + part.length])
            start += part.length
        x = torch.cat([*pieces, x[:, start:]], 1)
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})


def insert(owner: nn.Module, key: str, part: nn.Module, names: tuple[str, ...], path: str) -> None:
    """Put a part into the way of the input of `owner` under `key`."""
    part = required(part, EmbeddingsPart, "embeddings")
    arguments = inspect.signature(type(owner).forward).parameters
    if (part.shifted or part.shift) and not {"position_ids", "inputs_embeds"} <= set(arguments):
        raise DeltaError(
            f'positions="shifted" is for models that take position_ids: {path or "this model"}, a {type(owner).__name__}, '
            'does not. Use positions="kept"'
        )
    entry = owner.get_submodule(names[0])
    if part.shift and entry is not table_of(entry) and _start(entry) is None:
        raise DeltaError(f'{type(entry).__name__} counts positions from 0 alone: use positions="kept"')
    junction = owner._modules.get("deltas")
    if not isinstance(junction, Junction):
        junction = Junction(owner, names, path)
        owner.add_module("deltas", junction)
    junction.add_module(key, part)
    switch(owner, key, True)


def remove(owner: nn.Module, key: str) -> None:
    """Take a part out; with the last one the model is what it was."""
    switch(owner, key, False)
    junction: Any = owner._modules["deltas"]
    del junction._modules[key]
    if not any(isinstance(child, EmbeddingsPart) for child in junction.children()):
        for hook in junction.__dict__["hooks"]:
            hook.remove()
        del owner._modules["deltas"]


def switch(owner: nn.Module, key: str, on: bool) -> None:
    """Let a part act, or not."""
    junction: Any = owner._modules["deltas"]
    part = junction._modules[key]
    wanted = {id(p) for p in junction.active if p is not part} | ({id(part)} if on else set())
    junction.active = [p for p in junction.children() if id(p) in wanted]
