"""Proof that a delta does what it promises on a model, before hours are spent on training it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attaching import attach
from .base import Combination, Delta, methods_of
from .errors import DeltaError
from .handle import Handle, handles
from .hosts import Host, host_of
from .space import geometry, off_manifold

__all__ = ["Check", "Report", "check"]

NUDGE = 0.02  # deviation of the noise by which parameters leave a start at 0, where they hide one another's gradients


@dataclass(frozen=True)
class Check:
    """One property: whether it holds, and what was seen."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What :func:`check` found."""

    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        """Whether everything holds."""
        return all(c.passed for c in self.checks)

    def __str__(self) -> str:
        return "\n".join(
            f"{'ok  ' if c.passed else 'FAIL'}  {c.name}{': ' if c.detail else ''}{c.detail}" for c in self.checks
        )

    @property
    def failures(self) -> list[Check]:
        """What does not hold."""
        return [c for c in self.checks if not c.passed]


def check(
    model: nn.Module,
    spec: Delta | Combination,
    inputs: Mapping[str, Any] | None = None,
    *,
    host: Host | str | Mapping[str, str] | None = None,
    tolerance: float = 1e-5,
    raises: bool = False,
) -> Report:
    """Attach a delta to a copy of a model and try what it promises; the model itself is left alone.

    Step-0 identity where the method promises it; gradients for every parameter of the delta and none for the backbone; real
    tokens keep their positions and the output its shape; a deep copy is independent; detaching restores every bit; points
    stay on the hyperboloid; bfloat16 stays bfloat16.

    Parameters
    ----------
    model, spec, host : as for :func:`deltas.attach`
    inputs : keyword arguments of a call; None takes the model's ``dummy_inputs``
    tolerance : largest difference of outputs, over their largest value, that is rounding
    raises : raise a :class:`DeltaError` that lists what fails
    """
    if inputs is not None and not isinstance(inputs, Mapping):
        raise DeltaError(f"inputs are the arguments of a call by name, {{'x': tensor}}, got a {type(inputs).__name__}")
    bench = _Bench(model, spec, dict(inputs) if inputs is not None else _example(model), host, tolerance)
    with torch.random.fork_rng():  # of parts that are drawn, and of what a model draws
        report = Report(tuple(bench.run()))
    if raises and not report:
        raise DeltaError(
            f"{spec.name} on {type(model).__name__}: " + "; ".join(f"{c.name}: {c.detail}" for c in report.failures)
        )
    return report


def _example(model: nn.Module) -> dict[str, Any]:
    example = getattr(model, "dummy_inputs", None)
    if not isinstance(example, Mapping):
        raise DeltaError(f"{type(model).__name__} has no dummy_inputs: pass inputs, the keyword arguments of a call")
    return dict(example)


class _Bench:
    def __init__(
        self, model: nn.Module, spec: Delta | Combination, inputs: dict[str, Any], host: Any, tolerance: float
    ) -> None:
        if names := [name for module in model.modules() for name in handles(module)]:
            raise DeltaError(f"this model has deltas ({', '.join(names)}): detach them, or check the plain model")
        self.spec, self.inputs, self.host, self.tolerance = spec, inputs, host, tolerance
        host_of(model, host)
        self.model = copy.deepcopy(model).eval()

    def run(self) -> Iterator[Check]:
        """The checks, one after the other."""
        model = self.model
        before = _bits(model)
        with _positions(model) as seen:
            base = self.call(model)
        positions = list(seen)
        handle = attach(model, self.spec, host=self.host)
        with _positions(model) as seen:
            start = self.call(model)
        if all(method.exact for method in methods_of(self.spec)):
            yield self.close("unchanged at step 0", start, base)
        yield Check("shape of the output", start.shape == base.shape, f"{tuple(base.shape)} to {tuple(start.shape)}")
        yield Check(
            "positions",
            _kept(positions, seen),
            "real tokens keep theirs" if _kept(positions, seen) else _moved(positions, seen),
        )
        self.nudge(handle)
        yield self.gradients(handle)
        tuned = self.call(model)
        yield from self.independent(handle, tuned)
        if geometry(model)["geometry"] == "lorentz":
            off = off_manifold(model, lambda: self.call(model))
            yield Check("on the hyperboloid", not off, "; ".join(off[:2]))
        yield self.low_precision()
        handle.detach()
        yield Check("detach restores every bit", _bits(model) == before)
        handle.attach()
        yield self.close("attach again", self.call(model), tuned)

    def call(self, model: nn.Module) -> Tensor:
        """Output without gradients."""
        with torch.no_grad():
            return _output(model(**self.inputs))

    def close(self, name: str, a: Tensor, b: Tensor) -> Check:
        """Whether two outputs are equal up to rounding."""
        if a.shape != b.shape:
            return Check(name, False, f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
        off = float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-12))
        return Check(name, off <= self.tolerance, f"off by {off:.1e}")

    @torch.no_grad()
    def nudge(self, handle: Handle, *, heads: bool = True) -> None:
        """Move all parameters a little."""
        generator = torch.Generator().manual_seed(0)
        skip = () if heads else handle.head_parameters()
        for parameter in (p for name, p in handle.named_parameters() if name not in skip):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(NUDGE * noise.to(parameter))

    def gradients(self, handle: Handle) -> Check:
        """Every parameter of the delta gets one, and no other."""
        output = _output(self.model(**self.inputs))
        if not output.requires_grad:
            return Check("gradients", not list(handle.parameters()), "the output does not depend on the delta")
        weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
        torch.autograd.backward((output * weight).sum())
        mine = {id(p) for p in handle.parameters()}
        dead = [n for n, p in handle.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
        heads = {f"{n}" for n in handle.head_parameters()}
        dead = [n for n in dead if n not in heads]
        leaks = [
            n for n, p in self.model.named_parameters() if id(p) not in mine and (p.requires_grad or p.grad is not None)
        ]
        self.model.zero_grad(set_to_none=True)
        detail = "; ".join(
            f"{what} {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"
            for what, found in (("none for", dead), ("also for", leaks))
            if found
        )
        return Check("gradients", not dead and not leaks, detail)

    def independent(self, handle: Handle, tuned: Tensor) -> Iterator[Check]:
        """A deep copy acts alike, and a change of it does not come back."""
        twin = copy.deepcopy(self.model)
        yield self.close("deep copy acts alike", self.call(twin), tuned)
        self.nudge(handles(twin)[handle.name], heads=False)
        changed = self.call(twin)
        yield self.close("deep copy is independent", self.call(self.model), tuned)
        if handle.count():
            yield Check("deep copy has a delta of its own", not torch.equal(changed, tuned))

    def low_precision(self) -> Check:
        """Output in the dtype of the model without deltas, in bfloat16, finite."""
        twin = copy.deepcopy(self.model).to(torch.bfloat16)
        tuned = [handle for module in twin.modules() for handle in handles(module).values()]
        inputs = {
            k: v.to(torch.bfloat16) if isinstance(v, Tensor) and v.is_floating_point() else v
            for k, v in self.inputs.items()
        }
        try:
            with torch.no_grad():
                output = _output(twin(**inputs))
                with ExitStack() as off:
                    for handle in tuned:
                        off.enter_context(handle.disable())
                    own = _output(twin(**inputs)).dtype  # some models return float32 whatever their dtype
        except RuntimeError as error:
            return Check("bfloat16", False, str(error).splitlines()[0])
        finite = bool(torch.isfinite(output).all())
        return Check("bfloat16", output.dtype == own and finite, f"{output.dtype}{'' if finite else ', not finite'}")


def _output(output: Any) -> Tensor:
    """Logits, hidden states, or the tensor itself."""
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "last_hidden_state"):
        found = getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    first: Tensor = output[0]
    return first


def _bits(model: nn.Module) -> dict[str, bytes]:
    """Every parameter and buffer, to the bit."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name: t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, t in tensors.items()
        if t.numel()
    }


@contextmanager
def _positions(model: nn.Module) -> Iterator[list[Tensor]]:
    """The indices with which tables of positions are read within the block."""
    seen: list[Tensor] = []

    def look(module: nn.Module, args: tuple[Any, ...], *_: Any) -> None:
        if args and isinstance(args[0], Tensor) and not args[0].is_floating_point():
            seen.append(args[0].detach().clone())

    hooks: list[Callable[[], None]] = []
    for name, module in model.named_modules():
        if (isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2]) or name.endswith("wpe"):
            hooks.append(module.register_forward_pre_hook(look).remove)
    try:
        yield seen
    finally:
        for remove in hooks:
            remove()


def _kept(before: list[Tensor], after: list[Tensor]) -> bool:
    """Whether the last positions of every call are those from before: tokens of a delta may come first."""
    if len(before) != len(after):
        return False
    return all(_ends_with(b, a) for a, b in zip(before, after, strict=True))


def _ends_with(after: Tensor, before: Tensor) -> bool:
    n = before.shape[-1]
    return after.shape[-1] >= n and bool((after[..., after.shape[-1] - n :] == before).all())


def _moved(before: list[Tensor], after: list[Tensor]) -> str:
    pair = [(a, b) for a, b in zip(before, after, strict=False) if not torch.equal(a, b)]
    if not pair:
        return f"{len(before)} reads of positions became {len(after)}"
    return f"from {pair[0][0].flatten()[:4].tolist()}... to {pair[0][1].flatten()[:4].tolist()}..."
