from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest

from relsim.evidence.calibration import Calibration, fit_logistic, load_calibration
from relsim.evidence.reliability import reliability, threshold_for


def test_logistic_fit_finds_the_weights_it_was_made_from() -> None:
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=40000), "b": 5 * rng.normal(size=40000) + 3}
    truth = Calibration(("a", "b"), (1.5, -0.4), 0.7)
    label = (rng.random(40000) < truth.probability(x)).astype(float)
    found = fit_logistic(x, label)
    np.testing.assert_allclose(found.weights, truth.weights, atol=0.08)
    assert found.intercept == pytest.approx(0.7, abs=0.1)
    sklearn = pytest.importorskip("sklearn.linear_model")
    standard = np.stack([(v - v.mean()) / v.std() for v in x.values()], 1)
    other = sklearn.LogisticRegression(C=1.0, tol=1e-10).fit(standard, label)
    np.testing.assert_allclose(other.predict_proba(standard)[:, 1], found.probability(x), atol=1e-5)
    with pytest.raises(ValueError, match="all equal"):
        fit_logistic(x, np.ones(40000))


def test_probabilities_do_not_overflow() -> None:
    model = Calibration(("a",), (1.0,), 0.0)
    got = model.probability({"a": np.array([-1e6, -800.0, 0.0, 800.0, 1e6])})
    np.testing.assert_array_equal(got, [0.0, 0.0, 0.5, 1.0, 1.0])


def test_a_weight_of_the_wrong_sign_is_left_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5000))
    label = (rng.random(5000) < 1 / (1 + np.exp(-2 * a + b))).astype(float)
    free, held = fit_logistic({"a": a, "b": b}, label), fit_logistic({"a": a, "b": b}, label, sign={"a": 1, "b": 1})
    assert free.weights[1] < 0
    assert held.features == ("a",)
    assert held.weights[0] > 0
    with pytest.raises(ValueError, match="no feature"):
        fit_logistic({"a": a}, label, sign={"a": -1})


def regimes() -> list[str]:
    return list(json.loads(files("relsim.evidence").joinpath("calibration.json").read_text("utf-8"))["regimes"])


def test_weights_have_the_sign_of_their_meaning() -> None:
    against = {"log_kl"}
    free = {"log_n", "log_min", "log_max"}
    for regime in regimes():
        model = load_calibration(regime)
        assert model.provenance["fitted_on"]
        for name, weight in zip(model.features, model.weights, strict=True):
            assert name in free or (weight < 0) == (name in against), (regime, name)
    with pytest.raises(ValueError, match="no calibration for regime 'x'"):
        load_calibration("x")


def test_neural_probability_falls_with_divergence() -> None:
    from relsim.evidence.features import neural_features

    kl = np.array([0.0, 0.1, 1.0, 5.0, 50.0])
    local = 1.0 - np.log(kl + 1e-3)  # the same surroundings for all
    assert (np.diff(load_calibration("neural").probability(neural_features(kl, kl, local))) < 0).all()


def test_reliability_tells_true_probabilities_from_boasts() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.2, 2.0, 40000)
    label = (rng.random(40000) < p).astype(float)
    honest, boast = reliability(label, p), reliability(label, np.minimum(1.6 * p, 1.0))
    assert honest.error < 0.02 < 0.1 < boast.error
    assert all(stated.holds for stated in honest.stated)
    assert not any(stated.holds for stated in boast.stated)
    assert honest.brier_skill > boast.brier_skill
    constant = reliability(label, np.full(40000, label.mean()))
    assert constant.brier_skill == pytest.approx(0.0, abs=1e-12)
    assert constant.log_skill == pytest.approx(0.0, abs=1e-12)
    # The independent formula of the Brier skill, 1 - MSE / variance.
    assert honest.brier_skill == pytest.approx(1 - np.mean((p - label) ** 2) / label.var())
    with pytest.raises(ValueError, match="all equal"):
        reliability(np.ones(4), p[:4])


def test_threshold_for_a_stated_precision() -> None:
    p = np.array([0.99, 0.9, 0.7, 0.6, 0.2])
    assert threshold_for(p, 0.94) == 0.9
    assert threshold_for(p, 0.8) == 0.7 - 0.0 if np.mean(p[:4]) < 0.8 else 0.6
    assert threshold_for(p, 0.5) == 0.6
    assert threshold_for(p, 0.995) == 1.0
    assert threshold_for(p, 0.6, least=0.0) == 0.2
    with pytest.raises(ValueError, match=r"precision is 1\.0"):
        threshold_for(p, 1.0)


def test_a_threshold_takes_all_of_equal_probability() -> None:
    p = np.array([1.0] + [0.9] * 9 + [0.5] * 20)
    threshold = threshold_for(p, 0.85)
    assert threshold == 0.9 and p[p >= threshold].mean() >= 0.85
    assert threshold_for(np.array([0.9, 0.9, 0.5, 0.5]), 0.8) == 0.9
    assert threshold_for(np.zeros(0), 0.8) == 1.0
