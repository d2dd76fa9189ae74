"""k: what is taken for one, exact in every dtype and on every way, and part of a state that safetensors takes."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from lorentz import Lorentz, LorentzClassifier, LorentzLinear
from lorentz.curvature import positive

EXTRA = "_extra_state"
CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)


def model(k: float, *, learnable: bool = False) -> nn.Sequential:
    """Three layers on one manifold."""
    manifold = Lorentz(k, learnable=learnable)
    return nn.Sequential(
        LorentzLinear(4, 6, manifold=manifold),
        LorentzLinear(6, 6, manifold=manifold),
        LorentzClassifier(6, 2, manifold=manifold),
    )


def k_of(net: nn.Module) -> float:
    (manifold,) = {m for m in net.modules() if isinstance(m, Lorentz)}
    return float(manifold.k.detach())


@pytest.mark.parametrize("k", [2, 2.0, np.float32(2), np.array(2.0), torch.tensor(2.0), torch.tensor([2]), Fraction(2)])
def test_any_single_number_is_taken(k: Any) -> None:
    assert positive(k) == 2.0


@pytest.mark.parametrize(
    ("k", "given"),
    [
        ("2", "'2'"), ("flat", "'flat'"), (b"2", "b'2'"), (None, "None"), (True, "True"), ([2.0], r"\[2.0\]"), (1j, "1j"),
        (torch.ones(2), r"a Tensor of shape \(2,\)"), (np.ones((2, 1)), r"a ndarray of shape \(2, 1\)"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused_in_one_line(k: Any, given: str) -> None:
    with pytest.raises(TypeError, match=rf"k is one number > 0, such as 1.0 \(the curvature is -1/k\), got {given}$"):
        positive(k)


@pytest.mark.parametrize("k", [0, -1.0, float("nan"), float("inf"), torch.tensor(-2.0), np.float64(0)])
def test_a_number_that_is_no_curvature_is_refused(k: Any) -> None:
    with pytest.raises(ValueError, match="k must be a positive finite number"):
        positive(k)


def test_what_would_be_lost_is_refused() -> None:
    with pytest.raises(ValueError, match="learnable=True learns k"):
        positive(torch.tensor(1.0, requires_grad=True))
    with pytest.raises(TypeError, match="learnable"):
        Lorentz(1.0, 2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("rho", [None, 0.1])
def test_k_is_exact_to_the_bit_in_every_dtype(k: float, rho: float | None) -> None:
    net = model(k, learnable=rho is not None)
    manifold = net[0].manifold
    if rho is not None:
        manifold.rho.data.fill_(rho)
        manifold.k.backward()
    want = manifold.k.detach().clone()
    for change in (nn.Module.half, nn.Module.bfloat16, nn.Module.float, nn.Module.double):
        change(net)
        assert torch.equal(manifold.k.detach(), want) and manifold.k.dtype == torch.float64
    assert net.half()[0].weight.dtype == torch.float16
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other[1].manifold.k.detach(), want) and other[0].manifold is other[2].manifold
    if rho is not None:
        assert manifold.rho.grad.dtype == torch.float64


def test_k_survives_the_meta_device() -> None:
    with torch.device("meta"):
        net = model(0.1)
    assert net[0].weight.is_meta and k_of(net.to_empty(device="cpu")) == 0.1
    assert k_of(model(0.1).to("meta").to_empty(device="cpu")) == 0.1
    learned = Lorentz(0.1, learnable=True)
    assert learned.rho is not None
    learned.rho.data.fill_(2.0)
    learned.reset_parameters()
    assert float(learned.k.detach()) == 0.1


def test_a_state_holds_k_for_every_layer_and_nothing_twice(tmp_path: Path) -> None:
    net = model(0.1).bfloat16()
    state = net.state_dict()
    names = {name for name in state if name.endswith(EXTRA)}
    assert {f"{i}.manifold.{EXTRA}" for i in range(3)} <= names and not list(net.buffers())
    assert all(state[name].dtype == torch.float64 and state[name].tolist() == [0.1, 0.1] for name in names)
    save_file(state, tmp_path / "state.safetensors")  # refuses tensors that share memory
    other = model(0.1).bfloat16()
    assert other.load_state_dict(load_file(tmp_path / "state.safetensors")) == ([], [])
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


def test_a_state_may_stand_for_the_parameters_of_a_call() -> None:
    net, x = model(0.1), Lorentz(0.1).random_normal(3, 4)
    assert torch.equal(torch.func.functional_call(net, net.state_dict(), (x,)), net(x))
    assert k_of(net) == 0.1 and net.load_state_dict(net.state_dict()) == ([], [])


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("strict", [True, False])
def test_models_travel_through_safetensors(learnable: bool, strict: bool, tmp_path: Path) -> None:
    net = model(0.1, learnable=learnable)
    if learnable:
        net[0].manifold.rho.data.fill_(0.3)
    save_model(net, str(tmp_path / "model.safetensors"))
    other = model(0.1, learnable=learnable)
    assert load_model(other, tmp_path / "model.safetensors", strict=strict) == (set(), [])
    assert k_of(other) == k_of(net)


@pytest.mark.parametrize("strict", [True, False])
def test_the_state_of_another_k_is_refused_with_both_named(strict: bool, tmp_path: Path) -> None:
    message = r"0\.manifold: the state has k = 2 and this manifold k = 1: build it as Lorentz\(2\)"
    with pytest.raises(RuntimeError, match=message):
        model(1.0).load_state_dict(model(2.0).state_dict(), strict=strict)
    save_model(model(2.0), str(tmp_path / "model.safetensors"))
    with pytest.raises(RuntimeError, match=message):
        load_model(model(1.0), tmp_path / "model.safetensors", strict=strict)
    with pytest.raises(RuntimeError, match=r"manifold: the state has k = 2"):
        Lorentz(1.0).load_state_dict(Lorentz(2.0).state_dict(), strict=strict)


def test_one_layer_of_another_k_is_enough() -> None:
    two = model(1.0)
    two[2].manifold = Lorentz(3.0)
    with pytest.raises(RuntimeError, match=r"2\.manifold: the state has k = 3 and this manifold k = 1"):
        model(1.0).load_state_dict(two.state_dict())
    assert two.load_state_dict(two.state_dict()) == ([], [])


def test_a_learned_k_is_taken_over_to_the_bit() -> None:
    trained = model(2.0, learnable=True)
    trained[0].manifold.rho.data.fill_(-0.7)
    for k in (0.1, 2.0):
        fresh = model(k, learnable=True)
        assert fresh.load_state_dict(trained.state_dict()) == ([], [])
        assert k_of(fresh) == k_of(trained)
    with pytest.raises(RuntimeError, match=r"state has k = 0\.99317.* and this manifold k = 2"):
        model(2.0).load_state_dict(trained.state_dict(), strict=False)


@pytest.mark.parametrize("learnable", [False, True])
def test_a_state_without_k_loads_as_it_is(learnable: bool, tmp_path: Path) -> None:
    state = {n: v for n, v in model(2.0, learnable=learnable).state_dict().items() if not n.endswith(EXTRA)}
    net = model(0.1, learnable=learnable)
    assert net.load_state_dict(state, strict=True) == ([], []) and k_of(net) == 0.1
    with pytest.raises(RuntimeError, match="Missing key"):
        net.load_state_dict({n: v for n, v in state.items() if n != "1.weight"})
    if not learnable:  # a learned rho is a tied weight, which save_file refuses
        save_file(state, tmp_path / "old.safetensors")
        assert load_model(net, tmp_path / "old.safetensors") == (set(), [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("assign", [False, True])
def test_a_state_in_another_dtype_leaves_k_exact(dtype: torch.dtype, assign: bool) -> None:
    state = {name: value.to(dtype) for name, value in model(0.1).state_dict().items()}
    net = model(0.1)
    net.load_state_dict(state, assign=assign)
    assert k_of(net) == 0.1
    with pytest.raises(RuntimeError, match=r"this manifold k = 0\.2"):
        model(0.2).load_state_dict(state, assign=assign)


def test_a_spoilt_k_is_refused() -> None:
    for value in ([float("nan"), 1.0], [1.0, -1.0], [0.0, 0.0]):
        for learnable in (False, True):
            manifold = Lorentz(1.0, learnable=learnable)
            state = {**manifold.state_dict(), EXTRA: torch.tensor(value)}
            with pytest.raises(RuntimeError, match="expected positive finite numbers"):
                manifold.load_state_dict(state)


class Config(PretrainedConfig):
    model_type = "points"

    def __init__(self, k: float = 0.1, **rest: Any) -> None:
        super().__init__(**rest)
        self.k = k


class Pretrained(PreTrainedModel):
    config_class = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.net = model(config.k)
        self.post_init()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_transformers_checkpoint_keeps_k(dtype: torch.dtype, tmp_path: Path) -> None:
    saved = Pretrained(Config())
    saved.save_pretrained(tmp_path)
    loaded = Pretrained.from_pretrained(tmp_path, dtype=dtype)
    assert k_of(loaded) == 0.1 and loaded.net[0].weight.dtype == dtype
    assert torch.equal(loaded.net[1].weight, saved.net[1].weight.to(dtype))
    with pytest.raises(ValueError, match=r"the state has k = 0\.1 and this manifold k = 3"):
        Pretrained.from_pretrained(tmp_path, k=3.0)
    weights = load_file(tmp_path / "model.safetensors")
    old = {name: value for name, value in weights.items() if not name.endswith(EXTRA)}
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert k_of(Pretrained.from_pretrained(tmp_path, k=3.0)) == 3.0
