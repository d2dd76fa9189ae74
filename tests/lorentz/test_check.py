"""What check_manifold finds in what the layers are given: off the hyperboloid, of another curvature, Euclidean."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from lorentz import (
    FermiDirac,
    Lorentz,
    LorentzBatchNorm,
    LorentzClassifier,
    LorentzGraphAttention,
    LorentzGraphConv,
    LorentzLinear,
    LorentzMultiheadAttention,
    LorentzTransformerDecoder,
    check_manifold,
)
from lorentz.check import residual, watch

ONE, TWO = Lorentz(1.0), Lorentz(2.0)


def points(manifold: Lorentz = ONE, n: int = 6) -> Tensor:
    return manifold.lift(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)))


def linear(manifold: Lorentz, out: Lorentz | None = None) -> LorentzLinear:
    return LorentzLinear(4, 4, manifold=manifold, manifold_out=out)


def test_the_residual_is_that_of_the_worst_point_and_the_other_sheet_is_off() -> None:
    x = points().double()
    x[3, 0] *= 1.01
    expected = abs(-(x[3, 0] ** 2) + x[3, 1:].square().sum() + 1) / x[3, 0] ** 2
    assert residual(x) == pytest.approx(float(expected))
    assert residual(-points()) == float("inf")


def test_euclidean_features_of_the_right_size_are_found_and_told_the_fix() -> None:
    model = nn.Sequential(linear(ONE), linear(ONE))
    with pytest.raises(
        ValueError, match=r"0 is given points off the hyperboloid of k = 1: residual .*manifold\.lift"
    ) as e:
        check_manifold(model, points() * 3)
    assert "1 is given" not in str(e.value)
    with pytest.raises(ValueError, match=r"the model is given points off .* k = 2: residual"):
        check_manifold(linear(TWO), points(ONE))
    with pytest.raises(ValueError, match=r"residual nan, allowed 1\.0e-05;") as e:
        check_manifold(model, points() * float("nan"))
    assert "Euclidean" not in str(e.value)


def test_the_pair_of_layers_with_two_curvatures_is_named() -> None:
    model = nn.Sequential(linear(ONE), linear(TWO))
    message = r"1 takes points of k = 2 and is given those of 0, of k = 1: .*manifold_out"
    with pytest.raises(ValueError, match=message) as e:
        check_manifold(model, points())
    assert "residual" not in str(e.value)
    with pytest.warns(UserWarning, match=message):
        check_manifold(model, points(), on_failure="warn")
    assert not check_manifold(nn.Sequential(linear(ONE, TWO), linear(TWO)), points()).failures
    for head in (LorentzClassifier(4, 3, manifold=TWO), LorentzMultiheadAttention(4, 1, manifold=TWO)):
        with pytest.raises(ValueError, match="1 takes points of k = 2"):
            check_manifold(nn.Sequential(linear(ONE), head), points())


def test_far_points_do_not_hide_another_curvature() -> None:
    layer = LorentzLinear(4, 4, manifold=ONE, variant="unbounded")
    nn.init.constant_(layer.bias, 1e4)
    assert residual(layer(points()), k=2.0) < 1e-5  # by numbers alone they could be of k = 2
    model = nn.Sequential(layer, linear(TWO))
    with watch(model) as report:
        model(points())
    assert len(report.mismatches) == 1


def test_both_arguments_of_a_pair_are_looked_at_and_only_once() -> None:
    edges = FermiDirac(manifold=ONE)
    with pytest.raises(ValueError, match="the model is given points off"):
        check_manifold(edges, points(), points(TWO))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = linear(ONE), linear(ONE), linear(TWO)

        def forward(self, x: Tensor) -> Tensor:
            self.first(x), self.second(x), self.first(x)
            return self.third(x)

    model = Twice()
    with watch(model) as report:
        model(points())
    assert list(report.inputs) == ["first"]
    assert report.mismatches[0].startswith(
        "third takes points of k = 2 and is given those of the input of first, of k = 1"
    )


def test_what_is_no_point_is_not_taken_for_one() -> None:
    edges, weight = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([0.5, 1.0, 2.0])
    for layer in (LorentzGraphConv(4, 4, manifold=ONE), LorentzGraphAttention(4, 4, manifold=ONE)):
        assert check_manifold(layer, points(), edges, weight)
        with pytest.raises(ValueError, match="the model is given points off"):
            check_manifold(layer, points(TWO), edges, weight)
    with pytest.raises(TypeError, match="unexpected keyword"):
        check_manifold(linear(ONE), points(), nothing=1)


def test_points_given_by_keyword_are_looked_at() -> None:
    attend, decoder = LorentzMultiheadAttention(4, 1, manifold=ONE), LorentzTransformerDecoder(1, 4, 1, manifold=ONE)
    for layer, name in ((attend, "key"), (decoder, "memory")):
        assert check_manifold(layer, points()[None], **{name: points()[None]})
        with pytest.raises(ValueError, match="the model is given points off"):
            check_manifold(layer, points()[None], **{name: points(TWO)[None]})
    with pytest.raises(ValueError, match="the model is given points off"):
        check_manifold(linear(ONE), x=points(TWO))


def test_two_learned_curvatures_that_are_equal_so_far_are_a_warning() -> None:
    def pair(first: Lorentz, second: Lorentz) -> nn.Sequential:
        return nn.Sequential(linear(first), linear(second))

    with pytest.warns(UserWarning, match="1 and 0 have a k of their own each"):
        check_manifold(pair(Lorentz(1.0, True), Lorentz(1.0, True)), points())
    shared = Lorentz(1.0, learnable=True)
    assert not check_manifold(pair(shared, shared), points()).cautions
    assert not check_manifold(pair(ONE, Lorentz(1.0)), points()).cautions


def test_what_is_no_layer_of_this_library_may_take_what_it_likes() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.manifold, self.layer = ONE, linear(ONE)

        def forward(self, features: Tensor) -> Tensor:
            y: Tensor = self.layer(self.manifold.lift(features))
            return y

    assert not check_manifold(Model(), torch.randn(5, 3)).failures


def test_a_model_without_points_is_no_success() -> None:
    with pytest.warns(UserWarning, match="nothing was checked"):
        assert not check_manifold(nn.Linear(4, 4), points())


def test_every_module_gets_its_own_mode_back() -> None:
    model = nn.Sequential(LorentzBatchNorm(4, manifold=ONE), nn.Dropout(0.5))
    model[0].eval()
    before = model[0].running_mean.clone()
    check_manifold(model, points())
    assert [module.training for module in (model, model[0], model[1])] == [True, False, True]
    assert torch.equal(model[0].running_mean, before)


def test_watching_keeps_no_output_alive() -> None:
    model = nn.Sequential(linear(ONE), linear(ONE))
    with torch.no_grad(), watch(model):
        kept = weakref.ref(model(points()))
        gc.collect()
        assert kept() is None
