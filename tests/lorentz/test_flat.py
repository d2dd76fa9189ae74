"""The flat twins against torch's own layers, and the limits that they are of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lorentz import Lorentz, LorentzClassifier, LorentzLinear, LorentzMultiheadAttention
from lorentz import math as lm
from lorentz.flat import Euclidean, EuclideanClassifier, EuclideanLinear, EuclideanMultiheadAttention
from lorentz.heads import KINDS

D = torch.float64


def draw(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, dtype=D, generator=torch.Generator().manual_seed(seed))


def test_linear_is_torchs() -> None:
    layer = EuclideanLinear(5, 3, activation=torch.tanh).double()
    x, addend = draw(4, 5), draw(4, 3)
    torch.testing.assert_close(layer(x, addend=addend), F.linear(x.tanh(), layer.weight, layer.bias) + addend)
    with pytest.raises(ValueError, match=r"\[0, 1\), got 1.0"):
        EuclideanLinear(5, 3, dropout=1.0)


@pytest.mark.parametrize("mask", [None, "causal", "padding", "dead"])
def test_attention_is_softmax_of_negative_squared_distances(mask: str | None) -> None:
    torch.manual_seed(0)
    layer = EuclideanMultiheadAttention(6, 2).double()
    x, y, addend = draw(2, 4, 6), draw(2, 4, 6, seed=1), draw(2, 4, 6, seed=2)
    keep = torch.ones(2, 4, 4, dtype=torch.bool)
    options: dict[str, object] = {}
    if mask == "causal":
        keep, options = keep.tril(), {"is_causal": True}
    elif mask is not None:
        tokens = torch.arange(4).expand(2, 4) < torch.tensor([[3], [0 if mask == "dead" else 2]])
        keep, options = keep & tokens[:, None], {"key_padding_mask": tokens}
    parts = []
    for i in range(2):
        q, k, v = (m(p).view(2, 4, 2, 4)[:, :, i, 1:] for m, p in ((layer.query, x), (layer.key, y), (layer.value, y)))
        w = (-torch.cdist(q, k).square() / layer.log_scale.exp()).masked_fill(~keep, -1e300).softmax(-1)
        parts.append(w @ v)
    want = F.linear(torch.cat(parts, -1), layer.out.weight, layer.out.bias) + addend
    want = torch.where(keep.any(-1, keepdim=True), want, addend)
    torch.testing.assert_close(layer(x, y, addend=addend, **options), want)
    got, weights = layer(x, y, addend=addend, need_weights=True, **options)
    torch.testing.assert_close(got, want)
    assert not weights.masked_select(~keep[:, None]).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_classifiers_are_the_limits(kind: str, bias: bool) -> None:
    torch.manual_seed(0)
    flat = EuclideanClassifier(4, 3, kind=kind, bias=bias).double()
    if flat.bias is not None:
        torch.nn.init.normal_(flat.bias)
    x, errors = draw(5, 4), []
    for k in (1e3, 1e5):
        manifold = Lorentz(k)
        bent = LorentzClassifier(5, 3, manifold=manifold, kind=kind, bias=bias).double()
        bent.load_state_dict({**bent.state_dict(), **flat.state_dict()})
        errors.append((bent(manifold.lift(x)) - flat(x)).detach().abs().max().item())
    assert errors[1] < 1e-3 and errors[0] / errors[1] == pytest.approx(100, rel=0.05)
    if kind == "relative":  # no constant that cancels: float32 does for any k
        manifold = Lorentz(1e10)
        single = LorentzClassifier(5, 3, manifold=manifold, kind=kind, bias=bias)
        single.load_state_dict({**single.state_dict(), **flat.state_dict()})
        torch.testing.assert_close(single(manifold.lift(x.float())), flat(x).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [0.1, 1.0, 10.0])
def test_the_relative_classifier_is_a_difference_of_distances(k: float) -> None:
    torch.manual_seed(0)
    manifold = Lorentz(k)
    layer = LorentzClassifier(5, 3, manifold=manifold, kind="relative").double()
    torch.nn.init.normal_(layer.bias)
    x = manifold.lift(draw(6, 4))
    away = manifold.sqdist(x, manifold.origin(5, dtype=D)).unsqueeze(-1)
    want = away - manifold.sqdist(x.unsqueeze(-2), manifold.lift(layer.weight)) + layer.bias
    torch.testing.assert_close(layer(x), want)
    plain = LorentzClassifier(5, 3, manifold=manifold, kind="prototype").double()
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x).softmax(-1), plain(x).softmax(-1))
    assert layer.weight.manifold is manifold


@pytest.mark.parametrize("variant", ["paper", "sigmoid_time", "unbounded"])
def test_a_centred_layer_is_another_parametrisation(variant: str) -> None:
    torch.manual_seed(0)
    manifold = Lorentz(2.0)
    centred, plain = (
        LorentzLinear(5, 4, manifold=manifold, variant=variant, centred=c).double() for c in (True, False)
    )
    assert not centred.weight[:, 0].any()
    torch.nn.init.normal_(centred.weight)
    torch.nn.init.normal_(centred.bias)
    plain.load_state_dict(centred.state_dict())
    with torch.no_grad():
        plain.bias -= 2**0.5 * plain.weight[:, 0]
    x = manifold.lift(draw(6, 4))
    torch.testing.assert_close(centred(x), plain(x))
    if variant == "unbounded":  # the bias is what the origin becomes
        torch.testing.assert_close(centred(manifold.origin(5, dtype=D))[1:], centred.bias)


def test_from_origin_does_not_cancel() -> None:
    s = draw(7, 3)
    for k in (1e-3, 1.0, 1e12):
        got = lm.from_origin(lm.lift(s, k=k), k=k)
        assert torch.equal(got[:, 1:], s)
        squared = s.square().sum(-1)
        torch.testing.assert_close(got[:, 0], squared / ((k + squared).sqrt() + k**0.5), rtol=1e-14, atol=0)
    exact = lm.lift(s, k=1.0)[:, 0] - 1
    torch.testing.assert_close(lm.from_origin(lm.lift(s))[:, 0], exact)


def test_steps_on_the_time_column_do_not_grow_with_k() -> None:
    """What an optimiser moves by one step of a given size: at most its size times the input, however flat."""
    s = draw(6, 4)
    moved = []
    for centred in (True, False):
        manifold = Lorentz(1e8)
        layer = LorentzLinear(5, 4, manifold=manifold, variant="unbounded", centred=centred).double()
        x = manifold.lift(s)
        before = layer(x)
        with torch.no_grad():
            layer.weight[:, 0] += 1e-3
        moved.append((layer(x) - before).detach().abs()[:, 1:].max().item())
    assert moved[0] < 1e-5 and moved[1] > 5


def test_the_flat_manifold_lifts_nothing_and_averages() -> None:
    manifold, x = Euclidean(), draw(3, 5, 4)
    assert manifold.lift(x) is x
    torch.testing.assert_close(manifold.centroid(x), x.mean(1))
    weight = torch.tensor([1.0, 0, 0, 1, 0], dtype=D)
    torch.testing.assert_close(manifold.centroid(x, weight), x[:, [0, 3]].mean(1))


def test_attention_drops_what_enters_its_output_map() -> None:
    torch.manual_seed(0)
    manifold = Lorentz()
    layer = LorentzMultiheadAttention(5, 2, manifold=manifold, out_dropout=0.5)
    x = manifold.lift(torch.randn(2, 3, 4))
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))
