"""Handles: several deltas in one model, off and on, merged and out again."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deltas
from deltas import Adapter, BitFit, Delta, DeltaError, FullFineTuning, HeadOnly, LoRA, PrefixTuning, RationalActivation
from deltas.linear import LinearPart

from .backbones import backbone, inputs, nudge, result, state

HOST = {"attention.query": "blocks.*.q", "attention.value": "blocks.*.v", "ffn.down": "blocks.*.q"}


class Plain(nn.Module):
    """A module of nobody's family."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(6, 6), "v": nn.Linear(6, 6)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.tanh(block["q"](x)) * block["v"](x)
        return x


def plain() -> tuple[Plain, Tensor]:
    torch.manual_seed(0)
    return Plain(), torch.randn(4, 6)


def test_a_module_of_no_family() -> None:
    model, x = plain()
    before = model(x)
    handle = deltas.attach(model, LoRA(rank=2), host=HOST)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    assert handle.count() == 4 * (2 * 6 + 6 * 2)
    assert [n for n, _ in model.named_parameters() if "deltas" not in n] == [n for n, _ in Plain().named_parameters()]
    nudge(handle)
    explicit = deepcopy(model)
    for site in handle.sites:
        module: Any = explicit.get_submodule(site.path)
        part: Any = site.part
        module.weight.data += 2.0 * part.B.detach() @ part.A.detach()
    deltas.handles(explicit)["default"].detach()
    torch.testing.assert_close(model(x), explicit(x))


def test_names() -> None:
    model, _ = plain()
    deltas.attach(model, LoRA(), host=HOST, name="one")
    with pytest.raises(DeltaError, match="has a delta 'one'"):
        deltas.attach(model, LoRA(), host=HOST, name="one")
    for name in ("a.b", "", "forward", "train"):
        with pytest.raises(DeltaError, match="name"):
            deltas.attach(model, LoRA(), host=HOST, name=name)
    deltas.attach(model, Adapter(bottleneck=2, roles=("attention.query",)), host=HOST, name="two")
    assert set(deltas.handles(model)) == {"one", "two"}


def test_two_deltas_act_together_and_apart() -> None:
    model, x = plain()
    base = model(x).detach()
    one = deltas.attach(model, LoRA(rank=2), host=HOST, name="one")
    nudge(one)
    alone = model(x).detach()
    two = deltas.attach(model, LoRA(rank=3), host=HOST, name="two")
    nudge(two)
    both = model(x).detach()
    assert not torch.allclose(both, alone)
    with two.disable():
        torch.testing.assert_close(model(x), alone)
        with one.disable():
            torch.testing.assert_close(model(x), base)
    torch.testing.assert_close(model(x), both)
    one.detach()
    two.detach()
    torch.testing.assert_close(model(x), base)
    assert all(type(m) is not nn.Linear or "forward" not in m.__dict__ for m in model.modules())


def test_trained_parameters_of_the_backbone_change_hands() -> None:
    model, x = plain()
    before = state(model)
    first = deltas.attach(model, BitFit(), host=HOST, name="first")
    with pytest.raises(DeltaError, match=r"trains .*bias"):
        deltas.attach(model, FullFineTuning(), host=HOST, name="second")
    assert set(deltas.handles(model)) == {"first"}
    nudge(first)
    tuned = model(x).detach()
    first.disable()
    second = deltas.attach(model, BitFit(), host=HOST, name="second")
    torch.testing.assert_close(second.flatten(), torch.zeros(second.count()))
    with pytest.raises(DeltaError, match="'second' trains"):
        first.enable()
    second.disable()
    first.enable()
    torch.testing.assert_close(model(x), tuned)
    first.detach()
    second.detach()
    assert all(torch.equal(before[k], v) for k, v in state(model).items())


def test_all_deltas_that_act_are_trained() -> None:
    model, x = plain()
    one = deltas.attach(model, LoRA(rank=2), host=HOST, name="one")
    frozen = next(one.parameters()).requires_grad_(False)
    two = deltas.attach(model, Adapter(bottleneck=2, roles=("attention.query",)), host=HOST, name="two")
    nudge(one)
    nudge(two)
    model(x).square().sum().backward()
    moved = {id(p) for p in model.parameters() if p.grad is not None and p.grad.any()}
    assert moved == {id(p) for handle in (one, two) for p in handle.parameters()} - {id(frozen)}


def test_a_delta_that_is_on_again_is_trained_again() -> None:
    model, x = plain()
    one = deltas.attach(model, LoRA(rank=2) + BitFit(), host=HOST, name="one")
    nudge(one)
    one.disable()
    assert not any(p.requires_grad for p in one.owned().values())  # they are the backbone's while it is off
    two = deltas.attach(model, BitFit(), host=HOST, name="two")
    two.disable()
    one.enable()
    before = one.flatten()
    optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
    model(x).square().sum().backward()
    optimizer.step()
    assert (one.flatten() != before).all()
    one.disable()
    two.enable()
    one.detach()  # which does not take the parameters from the delta that has them now
    assert all(p.requires_grad for p in two.parameters())


def test_requires_grad_comes_back() -> None:
    model, _ = plain()
    model.blocks[0]["q"].weight.requires_grad_(False)
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    handle = deltas.attach(model, LoRA(), host=HOST)
    handle.detach()
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_merge_is_undone_to_the_bit(dtype: torch.dtype) -> None:
    model, x = plain()
    model.to(dtype)
    handle = deltas.attach(model, LoRA(rank=2), host=HOST)
    nudge(handle, 0.5)
    before = state(model)
    acting = model(x.to(dtype)).detach()
    handle.merge()
    assert handle.merged
    torch.testing.assert_close(model(x.to(dtype)), acting, rtol=0.05, atol=0.1 if dtype != torch.float32 else 1e-5)
    with pytest.raises(DeltaError, match="merged"):
        handle.merge()
    with pytest.raises(DeltaError, match="unmerge"):
        handle.disable()
    handle.unmerge()
    assert all(torch.equal(before[k], v) for k, v in state(model).items())


def test_merge_for_good() -> None:
    model, x = plain()
    handle = deltas.attach(model, LoRA(rank=2), host=HOST)
    nudge(handle)
    acting = model(x).detach()
    handle.merge(forget=True)
    assert not deltas.handles(model)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in Plain().named_parameters()]
    torch.testing.assert_close(model(x), acting)


def test_merge_refuses_and_leaves_the_model() -> None:
    model, _ = plain()
    handle = deltas.attach(model, LoRA(rank=2) + Adapter(bottleneck=2, roles=("ffn.down",)), host=HOST)
    nudge(handle)
    before = state(model)
    with pytest.raises(DeltaError, match="Adapter cannot be merged"):
        handle.merge()
    assert not handle.merged
    assert all(torch.equal(before[k], v) for k, v in state(model).items())


def test_heads_train_and_come_back() -> None:
    model = backbone("bert")
    before = state(model)
    handle = deltas.attach(model, HeadOnly())
    assert handle.heads == ["classifier"]
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"classifier.weight", "classifier.bias"}
    assert handle.count() == 0
    nudge(handle)
    handle.detach()
    assert all(torch.equal(before[k], v) for k, v in state(model).items())
    with pytest.raises(DeltaError, match=r"unknown head 'clasifier'. Did you mean 'classifier'"):
        deltas.attach(model, LoRA(), heads=["clasifier"])


def test_a_layer_that_is_never_called_is_refused() -> None:
    model = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2)})
    with pytest.raises(DeltaError, match="would do nothing"):
        deltas.attach(model, LoRA(roles=("attention.out",)), host={"attention.out": "a.out_proj"})


def test_a_failed_attach_changes_nothing() -> None:
    model = backbone("bert")
    before, names = state(model), [n for n, _ in model.named_modules()]
    grads = {n: p.requires_grad for n, p in model.named_parameters()}
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(DeltaError, match="set_attn_implementation"):
        deltas.attach(model, LoRA() + PrefixTuning())
    assert [n for n, _ in model.named_modules()] == names
    assert {n: p.requires_grad for n, p in model.named_parameters()} == grads
    assert all(torch.equal(before[k], v) for k, v in state(model).items())
    assert not any("forward" in m.__dict__ for m in model.modules())


def test_prefix_gives_the_attention_implementation_back() -> None:
    model = backbone("bert")
    was = model.config._attn_implementation
    handle = deltas.attach(model, PrefixTuning(length=2))
    handle.detach()
    assert model.config._attn_implementation == was
    result(model, "bert")


@pytest.mark.compiled  # the type check of the tests answers before the library
def test_class_instead_of_object() -> None:
    with pytest.raises(TypeError, match="brackets of LoRA"):
        deltas.attach(backbone("bert"), LoRA)  # type: ignore[arg-type]


def test_the_same_method_twice() -> None:
    with pytest.raises(DeltaError, match="LoRA twice"):
        LoRA() + LoRA(rank=2)


def test_one_vector() -> None:
    """In the order of paths, then names, the difference from the start; both ways."""
    model, x = plain()
    handle = deltas.attach(model, LoRA(rank=1), host=HOST)
    assert not handle.flatten().any()
    nudge(handle)
    acting, vector = model(x).detach(), handle.flatten()
    current, start = handle.parts(), handle.initial
    by_hand = [(current[k] - start[k]).reshape(-1) for k in sorted(current)]
    torch.testing.assert_close(vector, torch.cat(by_hand), rtol=0, atol=0)
    handle.unflatten(torch.zeros_like(vector))
    assert not handle.flatten().any()
    handle.unflatten(vector)
    torch.testing.assert_close(model(x), acting)
    with pytest.raises(DeltaError, match="parameters"):
        handle.unflatten(vector[1:])


def test_training_changes_the_delta_alone() -> None:
    model, x = plain()
    before = state(model)
    handle = deltas.attach(model, Adapter(bottleneck=3, roles=("attention.query",)) + LoRA(rank=2), host=HOST)
    optimiser = torch.optim.SGD(handle.parameters(), lr=0.1)
    target = torch.randn_like(x)
    losses = []
    for _ in range(60):
        loss = (model(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    handle.detach()
    assert all(torch.equal(before[k], v) for k, v in state(model).items())


@dataclass(frozen=True, kw_only=True)
class Scale(Delta):
    """A method from outside: one factor for each coordinate."""

    roles: tuple[str, ...] = ("attention.query",)

    def sites(self, host: deltas.Host) -> list[deltas.Site]:
        """Linear layers."""
        return self.at(host, *self.roles)

    def build(self, site: deltas.Site, space: Any, shared: nn.Module | None = None) -> nn.Module:
        """Factors."""
        return _Scale(site.out_features)


class _Scale(LinearPart):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(n))

    def after(self, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
        """Scaled."""
        return z * self.log.exp()


def test_a_part_from_outside_is_one_of_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("bert")
    monkeypatch.setattr(Scale, "build", lambda *_: nn.Linear(2, 2))
    with pytest.raises(DeltaError, match=r"subclasses deltas\.linear\.LinearPart; it gave a Linear"):
        deltas.attach(model, Scale())
    assert not deltas.handles(model)


def test_a_method_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deltas.methods.DELTAS", dict(deltas.DELTAS))
    deltas.register_delta(Scale)
    for name in ("bert", "gpt2", "lorentz"):
        model = backbone(name)
        assert deltas.check(model, Scale(), inputs(name))
    with pytest.raises(DeltaError, match="exists"):
        deltas.register_delta(type("Scale", (Scale,), {}))


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_step_of_the_optimiser_does_not_move_the_backbone_while_a_delta_is_off(set_to_none: bool) -> None:
    model = backbone("bert")
    before = result(model, "bert")
    handle = deltas.attach(model, BitFit())
    optimiser = torch.optim.AdamW(handle.parameters(), lr=0.1)
    result(model, "bert").sum().backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=set_to_none)
    want = result(model, "bert")
    handle.disable()
    optimiser.step()
    assert torch.equal(result(model, "bert"), before)
    handle.enable()
    assert torch.equal(result(model, "bert"), want)


def test_taking_a_delta_out_while_it_is_off_restores_the_backbone() -> None:
    model = backbone("bert")
    before = state(model)
    handle = deltas.attach(model, BitFit())
    nudge(handle)
    handle.disable()
    with torch.no_grad():
        for parameter in handle.owned().values():
            parameter.add_(1)
    handle.detach()
    assert all(torch.equal(before[k], v) for k, v in state(model).items())


def test_taking_a_delta_out_while_it_is_off_leaves_what_another_trains() -> None:
    model = backbone("bert")
    first = deltas.attach(model, LoRA(rank=2), name="first")
    first.disable()
    second = deltas.attach(model, LoRA(rank=2), name="second")
    nudge(second)
    want = result(model, "bert")
    first.detach()
    assert torch.equal(result(model, "bert"), want)
    assert all(p.requires_grad for p in second.parameters())


def test_parts_take_the_mode_of_their_layers_when_they_come_back() -> None:
    model = backbone("bert").train()
    handle = deltas.attach(model, LoRA(dropout=0.5) + RationalActivation(), heads=())
    handle.disable()
    model.eval()
    handle.enable()
    assert not any(site.part.training for site in handle.sites if site.part)
    handle.detach()
    model.train()
    handle.attach()
    assert all(site.part.training for site in handle.sites if site.part)
    handle.disable()
    model.double()
    handle.enable()
    assert {p.dtype for p in handle.parameters()} == {torch.float64}


@pytest.mark.parametrize("head", ["bert.encoder.layer.1", "classifier"])
def test_a_head_in_which_a_delta_acts_has_its_own_parameters_alone(head: str, tmp_path: Path) -> None:
    model = backbone("bert")
    own = sum(p.numel() for p in model.get_submodule(head).parameters())
    spec = LoRA(rank=1, roles=("attention.query", "classifier"))
    handle = deltas.attach(model, spec, name="a", heads=(head,))
    nudge(handle)
    names = [key for key, _ in handle.named_parameters()]
    parameters = list(handle.parameters())
    assert not any(".deltas." in f".{name}" for name in names) and len({id(p) for p in parameters}) == len(parameters)
    assert handle.count(heads=True) - handle.count() == own
    acting, vector = result(model, "bert"), handle.flatten()
    handle.save(tmp_path)
    other = deltas.attach(model, Adapter(bottleneck=2), name="b", heads=())
    with handle.disable():
        torch.testing.assert_close(handle.flatten(), vector)
    other.detach()
    fresh = backbone("bert")
    deltas.load(fresh, tmp_path, name="other")
    assert torch.equal(result(fresh, "bert"), acting)
    handle.detach()
    assert torch.equal(result(model, "bert"), result(backbone("bert"), "bert"))


def test_a_model_with_a_new_head_is_refused_before_anything_is_put_in() -> None:
    model = backbone("bert")
    handle = deltas.attach(model, LoRA(rank=1))
    nudge(handle)
    handle.detach()
    plain, old = model.bert(**inputs("bert")).last_hidden_state, model.classifier
    model.classifier = torch.nn.Linear(32, 5)
    with pytest.raises(DeltaError, match=r"classifier.weight.*has the shape \(5, 32\), not \(2, 32\)"):
        handle.attach()
    assert not deltas.handles(model) and torch.equal(model.bert(**inputs("bert")).last_hidden_state, plain)
    model.classifier = old
    handle.attach()


def test_a_function_that_another_delta_has_taken_is_refused_before_anything_acts() -> None:
    model = backbone("bert")
    plain = result(model, "bert")
    one = deltas.attach(model, LoRA() + BitFit() + RationalActivation(), name="one", heads=())
    nudge(one)
    one.disable()
    other = deltas.attach(model, RationalActivation(), name="other", heads=())
    with pytest.raises(DeltaError, match=r"'other' has taken the place of .*disable"):
        one.enable()
    assert not one.active
    other.detach()
    assert torch.equal(result(model, "bert"), plain)
    one.enable()


def test_a_delta_may_be_detached_while_it_is_off() -> None:
    model = backbone("bert")
    handle = deltas.attach(model, LoRA())
    with handle.disable():
        handle.detach()
    assert not handle.attached and not deltas.handles(model)


def test_parts_lie_where_layers_of_whole_numbers_lie() -> None:
    class Packed(torch.nn.Module):
        in_features = out_features = 4

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("packed", torch.zeros(4, 4, dtype=torch.int8, device="meta"))

    site = LoRA(roles=("q",)).sites(deltas.host_of(torch.nn.ModuleDict({"q": Packed()}), {"q": "q"}))[0]
    assert site.like.device.type == "meta" and site.like.dtype == torch.float32
