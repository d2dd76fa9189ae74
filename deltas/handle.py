"""A delta in a model: put in and taken out, switched, merged, as one vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from . import attention, statistics, taps
from .base import Combination, Delta, Site
from .errors import DeltaError
from .folding import fold_all, unfold
from .nesting import mark, meeting, refuse_changed, refuse_nested, refuse_shared, unmark
from .off import Off
from .vector import applied, begin, flatten, start_of, unflatten

__all__ = ["Handle", "handles"]


def handles(model: nn.Module) -> dict[str, Handle]:
    """Deltas of a model by their names; a deep copy has handles of its own."""
    found: dict[str, Handle] = model.__dict__.get("_delta_handles", {})
    return found


class Handle:
    """A delta in a model.

    Attributes
    ----------
    model, spec, name : as they were given
    sites : places and parts
    heads, dtype : as for :func:`deltas.attach`; the paths of the heads, the dtype wished for the parts
    active : whether the delta acts
    counted : whether the start is known from which :meth:`flatten` counts; files hold it if they were asked to
    """

    def __init__(
        self,
        model: nn.Module,
        spec: Delta | Combination,
        name: str,
        sites: list[Site],
        heads: Sequence[str],
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model, self.spec, self.name, self.sites, self.heads = model, spec, name, sites, list(heads)
        self.dtype = dtype
        self.active = False
        self.initial: dict[str, Tensor] = {}
        self.counted = True
        self._attached = self._gone = False
        self._base: dict[str, Tensor] | None = None  # weights as they were before a merge
        self._tuned: dict[str, Tensor] = {}  # values of trained parameters of the backbone while the delta is off
        self._trained: dict[str, bool] = {}  # whether each of them is trained while the delta acts
        self._moved: dict[str, Tensor] = {}  # running statistics that training moved, while the delta is off

    def __repr__(self) -> str:
        state = "merged" if self.merged else "attached" if self._attached else "detached"
        state += "" if self.active or not self._attached else ", disabled"
        return f"Handle({self.name!r}, {self.spec.name}, {len(self.sites)} sites, {self.count():,} parameters, {state})"

    # parameters

    @property
    def attached(self) -> bool:
        """Whether the delta is in the model, active or not."""
        return self._attached

    @property
    def merged(self) -> bool:
        """Whether the delta is folded into the weights."""
        return self._base is not None

    def _key(self, site: Site) -> str:
        """Name of a site's part in its module: two methods of one delta may meet in one module."""
        index = [other for other in self.sites if other.module is site.module].index(site)
        return self.name if not index else f"{self.name}+{index}"  # no name has a plus

    def parts(self) -> dict[str, Tensor]:
        """Parameters and stored buffers that the delta brought, by ``path of the site : name``; shared ones once."""
        found: dict[str, Tensor] = {}
        seen: set[int] = set()
        for site in self.sites:
            if site.part is None:
                continue
            key = self._key(site).removeprefix(self.name).lstrip("+")
            for own, tensor in site.part.state_dict(keep_vars=True).items():
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[f"{site.path}:{key + '.' if key else ''}{own}"] = tensor
        return found

    def owned(self) -> dict[str, nn.Parameter]:
        """Parameters of the backbone that the delta trains, by their path."""
        return {
            f"{site.path}.{own}" if site.path else own: site.module.get_parameter(own)
            for site in self.sites
            if site.kind == "parameters"
            for own in site.names
        }

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the heads, without those that deltas have brought there."""
        return {
            f"{path}.{own}": p
            for path in self.heads
            for own, p in self.model.get_submodule(path).named_parameters()
            if ".deltas." not in f".{own}"
        }

    def _borrowed(self) -> dict[str, nn.Parameter]:
        """Parameters of the model that the delta trains while it acts."""
        return {**self.owned(), **self.head_parameters()}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained: parameters of the delta and of the heads."""
        for key, tensor in {**self.parts(), **self._borrowed()}.items():
            if isinstance(tensor, nn.Parameter):
                yield key, tensor

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained, for an optimiser."""
        for _, parameter in self.named_parameters():
            yield parameter

    def count(self, *, heads: bool = False) -> int:
        """Number of trained parameters of the delta, and of the heads if `heads`."""
        own = [t for t in [*self.parts().values(), *self.owned().values()] if isinstance(t, nn.Parameter)]
        own += list(self.head_parameters().values()) if heads else []
        return sum(p.numel() for p in own)

    # in and out

    @torch.no_grad()
    def attach(self) -> None:
        """Put the delta (back) in: the parts act, the backbone is frozen. Bit for bit what was detached.

        If the model was moved or cast meanwhile, the parts follow it as :func:`deltas.attach` says. Other deltas of the
        model are trained as before.
        """
        if self._attached:
            raise DeltaError(f"the delta {self.name!r} is attached already")
        if self._gone:
            raise DeltaError(f"the delta {self.name!r} was merged for good and is part of the weights")
        table = self.model.__dict__.setdefault("_delta_handles", {})
        if self.name in table:
            raise DeltaError(f"this model has another delta {self.name!r}: detach it first")
        modules = list(self.model.named_modules())  # walked through once: that is most of what attaching costs
        refuse_nested(self.model, modules)
        refuse_shared(self)
        refuse_changed(self)
        if not table:  # the first delta: what was frozen before comes back with the last one
            self.model.__dict__["_delta_flags"] = {path: p.requires_grad for path, p in self.model.named_parameters()}
            statistics.keep(self.model, modules)
        done: list[Site] = []
        try:
            for site in self.sites:
                if site.part is not None:
                    if self.initial:  # it was in before
                        site.fit(self.dtype)
                    site.part.train(site.module.training)
                    taps.insert(site, self._key(site))
                    done.append(site)
        except Exception:
            for site in reversed(done):
                taps.remove(site, self._key(site))
            attention.release(self.model)
            raise
        own = self._borrowed()
        start = own if self.initial else {**self.parts(), **own}
        self.initial |= {path: p.detach().clone() for path, p in start.items()}
        for path, value in self._tuned.items():
            own[path].copy_(value)
        self._tuned = {}
        self._set_statistics(self._moved)
        self._moved = {}
        others = self._theirs() | {id(p) for other in table.values() for p in other.parts().values()}
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in others)
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        table[self.name] = self
        mark(modules, self.name)
        self._attached = self.active = True

    def _theirs(self) -> set[int]:
        """Parameters of the model that other deltas train now."""
        others = [other for other in handles(self.model).values() if other is not self and other.active]
        return {id(p) for other in others for p in other._borrowed().values()}

    def restart(self) -> None:
        """Take what the delta's own parameters are now as their initial state, which :meth:`flatten` counts from."""
        self.initial.update({path: p.detach().clone() for path, p in self.parts().items()})
        self.counted = True

    @torch.no_grad()
    def detach(self) -> None:
        """Take the delta out: the model is what it was, to the bit. The parts stay here; ``attach()`` puts them back."""
        if not self._attached:
            raise DeltaError(f"the delta {self.name!r} is not attached")
        if self.merged:
            self.unmerge()
        if self.active:
            self._swap_out()
        else:
            self._reset()
        for site in reversed(self.sites):
            if site.part is not None:
                taps.remove(site, self._key(site))
        attention.release(self.model)
        self._leave()

    def _leave(self) -> None:
        """Note that the delta is out; with the last one the backbone is trained or frozen as it was before the first."""
        del self.model.__dict__["_delta_handles"][self.name]
        unmark(self.model.named_modules(), self.name)
        if not handles(self.model):
            flags = self.model.__dict__.pop("_delta_flags")
            statistics.forget(self.model)
            for path, parameter in self.model.named_parameters():
                if path in flags:
                    parameter.requires_grad_(flags[path])
        elif self.active:  # else they may be another delta's by now
            for parameter in self._borrowed().values():
                parameter.requires_grad_(False)
        self._attached = self.active = False

    # off and on

    @torch.no_grad()
    def _swap_out(self) -> None:
        own = self._borrowed()
        self._tuned = {path: p.detach().clone() for path, p in own.items()}
        self._trained = {path: p.requires_grad for path, p in own.items()}
        self._reset()
        self._moved = statistics.moved(self.model)
        self._set_statistics(statistics.kept(self.model))

    def _reset(self) -> None:
        """Give the backbone its values, and no gradient by which a step of the optimiser would move it."""
        others = self._theirs()
        for path, parameter in self._borrowed().items():
            if id(parameter) not in others:
                parameter.copy_(self.initial[path]).requires_grad_(False)
                parameter.grad = None

    def _set_statistics(self, values: dict[str, Tensor]) -> None:
        """Set running statistics, unless another delta acts, which moves them too."""
        if not any(other.active for other in handles(self.model).values() if other is not self):
            statistics.restore(self.model, values)

    @torch.no_grad()
    def disable(self) -> Off:
        """Let the backbone act without the delta; ``with handle.disable():`` for a while.

        Heads, biases and norms that the delta trains get the backbone's values in place: between a forward pass and its
        backward pass autograd lets only deltas without any of these (``heads=()``) be disabled.
        """
        self._require_attached()
        if self.merged:
            raise DeltaError(f"the delta {self.name!r} is merged: unmerge() it first")
        was = self.active
        if was:
            self._swap_out()
            for site in self.sites:
                if site.part is not None:
                    taps.switch(site, self._key(site), False)
            self.active = False
        return Off(self, was)

    @torch.no_grad()
    def enable(self) -> None:
        """Let the delta act, and be trained, again."""
        self._require_attached()
        if self.active:
            return
        refuse_shared(self)
        own = self._borrowed()
        for path, value in self._tuned.items():
            own[path].copy_(value).requires_grad_(self._trained[path])
        self._tuned = {}
        self._set_statistics(self._moved)
        self._moved = {}
        for site in self.sites:
            if site.part is not None:
                if site.kind == "activation":  # it was outside of the model meanwhile, which may have been moved
                    site.fit(self.dtype)
                    site.part.train(site.module.training)
                taps.switch(site, self._key(site), True)
        self.active = True

    def _require_attached(self) -> None:
        if not self._attached:
            raise DeltaError(f"the delta {self.name!r} is not attached: call attach() first")

    # merging

    @torch.no_grad()
    def merge(self, *, forget: bool = False) -> None:
        """Fold the delta into the weights, so that it costs nothing at inference.

        The weights before are kept on the CPU until :meth:`unmerge`, which restores them to the bit, unless `forget`:
        then the delta is gone and the model is an ordinary one.

        Raises
        ------
        DeltaError : a method of the delta is no change of weights; names it, and the model is unchanged.
        """
        self._require_attached()
        if self.merged:
            raise DeltaError(f"the delta {self.name!r} is merged already")
        if not self.active:
            raise DeltaError(f"the delta {self.name!r} is disabled: enable() it first")
        for other in handles(self.model).values():
            if other is not self and (path := meeting(self, other)):
                raise DeltaError(
                    f"the delta {other.name!r} acts at {path} too: detach it before {self.name!r} is merged"
                )
        base = fold_all(self.model, self.sites)
        for site in self.sites:
            if site.part is not None:
                taps.switch(site, self._key(site), False)
        self._base = base
        if forget:
            self._forget()

    def _forget(self) -> None:
        self._base = None
        for site in reversed(self.sites):
            if site.part is not None:
                taps.remove(site, self._key(site))
        attention.release(self.model)
        self._leave()
        self._gone = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Restore the weights to the bit; the delta acts beside them again."""
        if self._base is None:
            raise DeltaError(f"the delta {self.name!r} is not merged")
        unfold(self.model, self._base)
        self._base = None
        for site in self.sites:
            if site.part is not None:
                taps.switch(site, self._key(site), True)

    # one vector

    def values(self) -> dict[str, Tensor]:
        """What is stored: every tensor of the delta and the heads as it is trained, while it is off or merged too.

        Running statistics of batch norms that training moved are among them.
        """
        own = self._borrowed()
        merged = {path: value for path, value in (self._base or {}).items() if path in own}
        running = statistics.moved(self.model) if self.active else self._moved
        return {**self.parts(), **own, **self._tuned, **merged, **running}

    def flatten(self) -> Tensor:
        """The delta as one float32 vector: what every parameter differs from its initial value, heads left out.

        In the order of the sites' paths, then of the parameters' names, row by row. Refused where no file held the start.
        """
        return flatten(self)

    def unflatten(self, vector: Tensor) -> None:
        """Set the delta to its initial state plus a vector as :meth:`flatten` gives it.

        A :class:`DeltaError` for another number of entries, a delta that is off or merged, or one read without its start.
        """
        unflatten(self, vector)

    def start(self) -> Tensor:
        """Initial values of what :meth:`flatten` gives."""
        return start_of(self)

    def begin(self, start: Tensor) -> None:
        """Set the delta to initial values of another delta with equal options, as its :meth:`start` gives them.

        Raises
        ------
        DeltaError : as for :meth:`unflatten`; the delta trains parameters of the backbone, which begin where they are, alone
            or from other values than the start has; or it chose its parameters when it was made, as SparseAdapter does.
        """
        begin(self, start)

    def applied(self, vector: Tensor) -> AbstractContextManager[None]:
        """``with handle.applied(vector):`` it is its start plus a vector, to which gradients flow; see :meth:`unflatten`."""
        return applied(self, vector)

    def save(self, folder: Any, *, start: bool = False) -> None:
        """Store the delta and the heads; see :func:`deltas.save`."""
        from .storage import save

        save(self, folder, start=start)
