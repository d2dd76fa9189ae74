"""Planes go through their points, and the good part of a square is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deltas import DeltaError
from deltas.subspace import Plane, landscape, pca_subspace


def test_a_plane_goes_through_three_points() -> None:
    points = list(torch.randn(3, 7, generator=torch.Generator().manual_seed(2)))
    plane = Plane.through(points, margin=2.0)
    for point in points:
        x, y = plane.coordinates(point)
        assert torch.allclose(plane.point(x, y), point, atol=1e-5)
    assert max(float(np.hypot(*plane.coordinates(p))) for p in points) == pytest.approx(0.5, abs=1e-5)
    assert abs(float(plane.first @ plane.second)) < 1e-4
    other = plane.turned(3)
    assert torch.equal(other.centre, plane.centre)
    assert float(other.first.norm()) == pytest.approx(float(plane.first.norm()), rel=1e-5)
    assert abs(float(other.first @ other.second)) < 1e-4
    assert Plane.through([points[0], points[1]]).coordinates(points[0])[1] == pytest.approx(0.0, abs=1e-5)


def test_the_good_part_of_a_disc_and_a_half_plane() -> None:
    plane = Plane(torch.zeros(3), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))

    def score(method: str, point: Tensor) -> np.ndarray:
        inside = float(point.norm()) <= 0.8 if method == "disc" else float(point[0]) >= 0
        return np.full(40, 1.0) if inside else np.zeros(40)

    found = landscape(score, plane, methods=["disc", "half"], grid=201)
    best = {"disc": np.ones(40), "half": np.ones(40)}
    assert found.share(best) == pytest.approx(np.pi * 0.64 / 8, abs=0.01)
    assert found.interval(best, draws=3) == (found.share(best), found.share(best))
    assert landscape(score, plane, methods=["half"], grid=201).share(best) == pytest.approx(0.5, abs=0.01)
    assert found.scores["half"].shape == (201, 201)
    assert found.scores["half"][0, -1] == 1.0
    assert found.scores["half"][-1, 0] == 0.0  # columns are the first coordinate


def test_chance_is_taken_away() -> None:
    plane = Plane(torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    at = np.array([1.0] * 76 + [0.0] * 24)
    found = landscape(lambda method, point: at, plane, methods=["a"], grid=2)
    best = {"a": np.array([1.0] * 80 + [0.0] * 20)}
    assert found.share(best, keep=0.9) == 1.0
    assert found.share(best, keep=0.9, chance=0.5) == 0.0
    assert found.share({"a": at}, chance=0.76) == 0.0  # a best that is a guess leaves nothing to keep
    low, high = found.interval(best, keep=0.95, chance=0.0)
    assert low == 0.0
    assert high == 1.0


def test_the_landscape_of_a_space_reads_vectors() -> None:
    generator = torch.Generator().manual_seed(1)
    solutions = {
        f"t{i}": {"a": torch.randn(30, generator=generator), "b": torch.randn(40, generator=generator)}
        for i in range(3)
    }
    space = pca_subspace(solutions, 3)
    plane = Plane.through([space.encode("a", row["a"]) for row in solutions.values()])
    found = space.landscape(lambda name, vector: np.array([float(vector.sum())]), plane, grid=3)
    assert found.scores["b"].shape == (3, 3)
    for name in ("a", "b"):
        expected = space.decode(name, plane.point(1.0, -1.0)).sum()
        assert found.scores[name][0, 2] == pytest.approx(float(expected), abs=1e-4)


def test_errors() -> None:
    with pytest.raises(DeltaError, match="two points"):
        Plane.through([torch.zeros(3)])
    with pytest.raises(DeltaError, match="equal"):
        Plane.through([torch.zeros(3)] * 3)
    with pytest.raises(DeltaError, match="grid"):
        landscape(
            lambda m, p: np.ones(1),
            Plane(torch.zeros(2), torch.ones(2), torch.ones(2)),
            methods=["a"],
            grid=1,
        )
