"""Every differentiable function of torch that takes one of a few forms of arguments: its gradient bears eight bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltas.activations import ActivationCompressor, Policy

from .networks import drawn, error

SIZE = 24
SPACES = {"torch": torch, "functional": F, "special": torch.special, "linalg": torch.linalg, "Tensor": torch.Tensor}
CHANCE = ("rand", "dropout", "bernoulli", "normal_", "uniform_", "exponential_", "cauchy_", "log_normal_", "geometric_",
          "multinomial", "gumbel", "rrelu", "empty", "lowrank", "lobpcg")  # fmt: skip
GLOBAL = (
    "set_",
    "seed",
    "manual_seed",
    "use_deterministic",
    "backward",
    "register",
    "retain",
    "save",
    "load",
    "compile",
)
FORMS: dict[str, Callable[[Any, Tensor], Any]] = {
    "x": lambda f, x: f(x * 1),
    "x, a": lambda f, x: f(x * 1, (drawn(SIZE, SIZE) > 0).float()),
    "x, y": lambda f, x: f(x * 1, (x * 0.9).flip(1)),
    "x, 0.5": lambda f, x: f(x * 1, 0.5),
    "x, 1": lambda f, x: f(x * 1, 1),
    "x, 0.2, 0.7": lambda f, x: f(x * 1, 0.2, 0.7),
    "x, y, z": lambda f, x: f(x * 1, x * 1.1, (x * 0.9).flip(0)),
}
INPUTS = {
    "around zero": drawn(SIZE, SIZE),
    "between 0 and 1": torch.special.ndtr(drawn(SIZE, SIZE)).clamp(1e-4, 1 - 1e-4),
}


def functions(space: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in dir(SPACES[space]):
        found = getattr(SPACES[space], name)
        private = name.startswith("_") and not (
            space == "Tensor" and name.strip("_") in ("abs", "mod", "rmod", "imod", "rpow")
        )
        if not callable(found) or isinstance(found, type) or private or name.startswith(GLOBAL):
            continue
        if not any(word in name for word in CHANCE):
            yield name, found


def summed(result: Any) -> Tensor | None:
    """A fixed sum of what is differentiable in a result."""
    several = result if isinstance(result, tuple | list) else (result,)
    tensors = [t for t in several if isinstance(t, Tensor) and t.requires_grad and t.is_floating_point() and t.numel()]
    total = torch.zeros(())
    for t in tensors:
        total = total + (t * drawn(t.numel()).flip(0).view(t.shape)).sum()  # not the numbers of the input
    return total if tensors else None


def gradients(call: Callable[[Tensor], Any], x: Tensor) -> tuple[Tensor, Tensor] | None:
    """With and without compression; None where there is none."""
    try:
        plain = summed(call(x))
        want = None if plain is None else torch.autograd.grad(plain, x)[0]
    except Exception:  # whatever a function says to arguments that it does not take
        return None
    if want is None or not torch.isfinite(want).all() or not want.any():
        return None
    with ActivationCompressor(bits=8, policy=Policy(min_numel=64)):
        packed = summed(call(x))
    assert packed is not None
    return torch.autograd.grad(packed, x)[0], want


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("space", SPACES)
def test_the_gradient_of_every_function_bears_eight_bits(space: str) -> None:
    wrong, tried = [], 0
    for name, function in functions(space):
        for form, call in FORMS.items():
            for kind, start in INPUTS.items():
                found = gradients(lambda x, f=function, call=call: call(f, x), start.clone().requires_grad_())  # type: ignore[misc]
                if found is None:
                    continue
                tried += 1
                if not (off := error(*found)) < 0.04:
                    wrong.append(f"{name}({form}) {kind}: {off:.3g}")
    assert not wrong
    assert tried > 10


@pytest.mark.parametrize(
    "layer",
    [
        nn.LeakyReLU(0.01),
        nn.PReLU(),
        nn.ELU(alpha=0.3),
        nn.SELU(),
        nn.Hardswish(),
        nn.Hardsigmoid(),
        nn.ReLU6(),
        nn.Hardtanh(),
    ],
    ids=str,
)
@pytest.mark.parametrize("inplace", [False, True])
def test_the_mean_over_roundings_is_the_gradient_of_an_activation(layer: nn.Module, inplace: bool) -> None:
    """Also that of the layer behind it, which reads the result."""
    if inplace and not hasattr(layer, "inplace"):
        pytest.skip("it has no form in place")
    if inplace:
        layer.inplace = True  # type: ignore[assignment]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), layer, nn.Linear(32, 8))
    weight = drawn(64, 8)
    parameters = list(model.parameters())

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    want = gradient((model(drawn(64, 16)) * weight).sum())
    draws = []
    for seed in range(48):
        with ActivationCompressor(model, bits=4, seed=seed, policy=Policy(min_numel=64)):
            loss = (model(drawn(64, 16)) * weight).sum()
        draws.append(gradient(loss))
    alone = sum(error(draw, want) for draw in draws) / len(draws)
    assert error(torch.stack(draws).mean(0), want) < 0.3 * alone  # unbiased: 0.14
