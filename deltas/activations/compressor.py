"""The context in which what autograd saves is compressed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from weakref import WeakValueDictionary, ref
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import DeltaError
from .calibration import Calibration, calibrate
from .entries import Content, Exact, Kept, Life, Point, Rectified, Source, Window, window
from .functions import Watch
from .groups import BITS, Groups, Noise, quantise
from .lossless import Narrow, TwoValued, lossless, mask_of
from .policy import Policy, are_points, made_by, marked, of_parameter, unsuitable
from .report import Report

__all__ = ["ActivationCompressor"]


# Functions whose saved result tells by its sign which derivative holds.
_SIGNED = frozenset(f"{name}Backward{n}" for name in ("Relu", "LeakyRelu", "Elu", "Celu") for n in (0, 1))


def _label(content: Content) -> str:
    if isinstance(content, Groups):
        return f"{content.bits} bits"
    if isinstance(content, Rectified):
        return f"{_label(content.sizes)} and a sign"
    if isinstance(content, TwoValued | Narrow):
        return "lossless"
    return "points" if isinstance(content, Point) else "raw"


class ActivationCompressor:
    """Activation-compressed training: what a forward pass saves for the backward pass is held at a few bits a number.

    The forward pass is the same to the bit; the gradient is unbiased but for what rounding does inside nonlinear
    derivatives. ::

        compressor = ActivationCompressor(model, bits=4)
        with compressor:
            loss = model(**batch).loss
        loss.backward()
        print(compressor.stats())

    Values are rounded up or down at random in groups of `group` with a range of their own (``quantise``). Truth values,
    two-valued tensors (the noise of dropout, masks) and integers are packed without loss. A tensor that several layers save
    is held once. Attention is recomputed from its arguments (``consistent_attention``); what ReLU and its kind save keeps its
    sign.
    ``calibrate`` gives every tensor bits of its own. After GACT (Liu et al., ICML 2022).

    Parameters
    ----------
    model : whose modules name the tensors; None where that is not wanted
    bits : 8, 4, 2 or 1
    group : values of one range, a multiple of 8
    policy : what stays exact
    seed : of the rounding; global generators are not touched
    attention : whether attention is recomputed; without, what its kernels save is quantised, which fails below 8 bits

    Attributes
    ----------
    forwards : times that it was entered; rounding depends on it, so set it where a stopped training goes on
    report : of the last forward pass; None before the first
    levels : bits by the name of a saved tensor (module, colon, place among those that it saves), from ``calibrate``

    Raises
    ------
    DeltaError : bits or a group that cannot be; a policy with names that no module has.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        bits: int = 4,
        group: int = 64,
        policy: Policy | None = None,
        seed: int = 0,
        attention: bool = True,
    ) -> None:
        if type(bits) is not int or bits not in BITS:
            raise DeltaError(f"bits is {bits}; give one of {', '.join(map(str, BITS))}")
        if type(group) is not int or group < 8 or group % 8 or group > 4096:
            raise DeltaError(f"group is {group}; give a multiple of 8 up to 4096, usually 64")
        self.model, self.bits, self.group, self.seed = model, bits, group, seed
        self.policy = policy or Policy()
        self.policy.check(model)
        self.attention = attention
        self.forwards = 0
        self.levels: dict[str, int] = {}
        self._noise: dict[torch.device, Noise] = {}
        self._stack: ExitStack | None = None
        self.report: Report | None = None
        self._recent: tuple[ref[Source], Tensor] | None = None
        self.make: Callable[[Tensor, str], Content | None] = self._quantised

    # the context

    def __enter__(self) -> ActivationCompressor:
        if self._stack is not None:
            raise DeltaError("this compressor is already in use; enter it once around the forward pass")
        self._path: list[str] = []
        self._places: dict[str, int] = {}
        self._table: WeakValueDictionary[tuple[Any, ...], Source] = WeakValueDictionary()
        self._held: dict[int, Life] = {}
        self._counted: dict[int, Life] = {}
        self._recent = None
        self.report = Report()
        self._own = self._storages()
        self._passes = 0
        self._watch = Watch(attention=self._consistent)
        with ExitStack() as stack:
            self._name_modules(stack)
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack))
            stack.enter_context(self._watch)
            self._stack = stack.pop_all()
        self.forwards += 1
        return self

    def __exit__(self, *error: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()
        self._own, self._table, self._held, self._counted = set(), WeakValueDictionary(), {}, {}

    def stats(self) -> Report:
        """Bytes of the last forward pass.

        Raises
        ------
        DeltaError : there was none, or nothing was saved in it.
        """
        if self.report is None:
            raise DeltaError("no forward pass yet: run it inside `with compressor:`")
        if not self.report.saved:
            raise DeltaError(
                "nothing was saved inside the context: run the forward pass in it (backward() alone packs nothing), with "
                "gradients on"
            )
        return self.report

    def _storages(self) -> set[int]:
        """Storages of parameters and buffers, found anew for each pass: a model may move."""
        if self.model is None:
            return set()
        tensors = [*self.model.parameters(), *self.model.buffers()]
        real = (x for x in tensors if x.layout is torch.strided and x.device.type != "meta" and not is_lazy(x))
        return {x.untyped_storage()._cdata for x in real}

    def _consistent(self) -> bool:
        """Whether attention is to be recomputed: not inside a checkpoint, whose hooks are above ours.

        It counts what is saved, and counts again when it recomputes, without us.
        """
        top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)  # not before torch 2.8
        hooks = None if top is None else top(False)
        return self.attention and (hooks is None or hooks[0] == self._pack)

    def _name_modules(self, stack: ExitStack) -> None:
        if self.model is None:
            return
        for name, module in self.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue

            def enter(_module: nn.Module, _args: Any, path: str = name) -> None:
                if not path:  # the same names in a second pass of the model, and other noise
                    self._places.clear()
                    self._passes += 1
                self._path.append(path)

            def leave(*_anything: Any) -> None:
                if self._path:
                    self._path.pop()

            for hook in (
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave, always_call=True),
            ):
                stack.callback(hook.remove)

    # saved tensors

    def _pack(self, x: Tensor) -> Exact | Kept:
        assert self.report is not None
        self.report.saved += 1
        path = self._path[-1] if self._path else ""
        if reason := unsuitable(x):
            return self._exact(x, reason, path)
        if self._owned(x):
            return Exact(x)
        slope = x.is_floating_point() and x.requires_grad
        name = self._name(path) if slope else ""
        form = self._form(x, path) if slope else "lossless"
        if x.numel() < self.policy.min_numel:
            form = "exact: small"
        if form.startswith("exact: "):
            return self._exact(x, form.removeprefix("exact: "), path)
        points = form == "points"
        once, way = (x, Window(tuple(range(x.dim())), tuple(x.shape), x.shape)) if points else window(x)
        storage = x.untyped_storage()
        dense = once.is_contiguous() and not points
        shape: Any = (
            once.numel() if dense else (once.shape, once.stride())
        )  # views of other shapes show the same values
        key = (form, storage._cdata, x._version, x.storage_offset(), shape, x.dtype)
        if self._exactly(storage):  # another function needs it as it is
            return Exact(x)
        source = self._table.get(key)
        if source is None or source.life.gone:
            content = self._content(form, once.detach(), name)
            if content is None:
                return self._exact(x, "not finite" if slope else "no gradient", path)
            self.report.add(_label(content), path, self._plain(storage), content.nbytes)
            source = self._table[key] = Source(content, storage, constant=self.make == self._quantised)
        source.views += 1
        return Kept(source, way)

    def _name(self, path: str) -> str:
        """Name of what a module saves next; counted before any rule, so that it does not depend on sizes."""
        place = self._places.get(path, 0)
        self._places[path] = place + 1
        return f"{path}:{place}"

    def _exactly(self, storage: torch.UntypedStorage) -> bool:
        """Whether a storage is held as it is."""
        known = self._held.get(storage._cdata)
        return known is not None and not known.gone

    def _plain(self, storage: torch.UntypedStorage) -> int:
        """Bytes that torch would hold for a tensor of a storage: all of it, once."""
        known = self._counted.get(storage._cdata)
        if known is not None and not known.gone:
            return 0
        self._counted[storage._cdata] = Life(storage)
        return storage.nbytes()

    def _forget(self, _gone: object) -> None:
        self._recent = None

    def _owned(self, x: Tensor) -> bool:
        """Whether it is held by the model, or by the caller, anyway."""
        if self.model is None:
            return x.is_leaf and x.requires_grad
        return x.untyped_storage()._cdata in self._own

    def _form(self, x: Tensor, path: str) -> str:
        """What becomes of a tensor that gets a gradient."""
        if x.untyped_storage()._cdata in self._watch.weights or of_parameter(x):
            return "exact: weight or leaf"
        if self._watch.exact:
            return "exact: by its function"
        if self.policy.skipped(path):
            return "exact: skipped"
        if marked(x):
            whole = self.policy.marked is not None and are_points(x)
            return "points" if whole else "exact: marked by its function"
        if self.policy.exact is not None and self.policy.exact(x.detach()):
            return "exact: the policy's own rule"
        node = made_by(x.grad_fn)
        if any(node is maker for maker in self._watch.makers):
            return "exact: weight or leaf"
        return "signed" if self._watch.signed or type(node).__name__ in _SIGNED else "values"

    def _unpack(self, saved: Exact | Kept) -> Tensor:
        if isinstance(saved, Exact) or saved.source.views == 1 or not saved.source.constant:
            return saved.restore()
        recent = self._recent  # layers that read one tensor, as queries, keys and values do, follow each other
        if recent is None or recent[0]() is not saved.source:
            recent = self._recent = (ref(saved.source, self._forget), saved.source.content.restore())
        return saved.window.of(recent[1])

    def _exact(self, x: Tensor, reason: str, path: str) -> Exact:
        assert self.report is not None
        if x.layout is torch.strided and x.device.type != "meta":
            storage = x.untyped_storage()
            if not self._exactly(storage):
                plain = self._plain(storage)
                if reason == "small" and storage.nbytes() > 4 * x.nbytes:  # it would keep all of a large tensor alive
                    self.report.add(f"exact: {reason}", path, plain, x.nbytes)
                    return Exact(x.detach().clone())
                self._held[storage._cdata] = Life(storage)
                self.report.add(f"exact: {reason}", path, plain, storage.nbytes())
        return Exact(x)

    def _content(self, form: str, x: Tensor, name: str) -> Content | None:
        """What to hold in place of a tensor; None where it has to stay."""
        if form == "points":
            rows = x.reshape(-1, x.shape[-1])
            space = self.quantised(rows[:, 1:].reshape(-1), name, 8)
            return None if space is None else Point(rows[:, :1].clone(), space)
        flat = x.reshape(-1)
        if form == "lossless":
            return lossless(flat)
        if form == "values":
            return self.make(flat, name)
        sizes = self.make(flat.abs(), name)
        return None if sizes is None else Rectified(sizes, mask_of(flat > 0))

    def _quantised(self, flat: Tensor, name: str) -> Groups | None:
        return self.quantised(flat, name, self.levels.get(name, self.bits))

    def quantised(self, flat: Tensor, name: str, bits: int) -> Groups | None:
        """Values (n,) of the saved tensor `name` at `bits` bits; None where one is not finite."""
        noise = self._noise.get(flat.device)
        if noise is None:
            noise = self._noise[flat.device] = Noise(self.seed, device=flat.device)
        offset = crc32(f"{self.seed} {self.forwards} {self._passes} {name}".encode())
        return quantise(flat, bits, group=self.group, noise=noise, offset=offset)

    def calibrate(
        self, loss: Callable[[], Tensor], *, budget: float | None = None, levels: tuple[int, ...] = (8, 4, 2)
    ) -> Calibration:
        """Choose bits for every tensor by what its rounding does to the gradient; ``levels`` is set to them.

        Runs `loss` once and one backward pass for every tensor that is quantised; gradients that parameters have, buffers
        and random generators are left as they were. See ``calibrate``.

        Parameters
        ----------
        loss : runs the model on a batch and returns its loss
        budget : mean bits a number; those of the compressor by default
        levels : bits to choose from

        Raises
        ------
        DeltaError : there is no model, nothing to choose for, or a budget below the least level.
        """
        return calibrate(self, loss, budget=float(self.bits) if budget is None else budget, levels=levels)
