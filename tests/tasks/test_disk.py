from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.report.disk import draw_disk, geodesic_circle, geodesic_path
from tasks.report.projection import hyperbolic_distance, to_disk


def disk_points(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.tanh(rng.uniform(0, 3, n) / 2)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


# Geodesics

# Polar coordinates: nothing has to be filtered out.
point = st.builds(
    lambda radius, angle: (radius * math.cos(angle), radius * math.sin(angle)),
    st.floats(1e-4, 0.999),
    st.floats(0, 2 * math.pi),
)


@given(point, point)
def test_geodesic_circle_meets_the_boundary_at_right_angles(u, v):
    circle = geodesic_circle(u, v)
    u, v = np.array(u), np.array(v)
    if circle is None:
        assert abs(u[0] * v[1] - u[1] * v[0]) <= 1e-7
        return
    centre, radius = circle
    # Two circles are orthogonal where the squared distance of the centres is the sum of the squared radii.
    assert centre @ centre == pytest.approx(1 + radius**2, rel=1e-12)
    scale = radius**2 + 1
    for p in (u, v):
        assert abs((p - centre) @ (p - centre) - radius**2) <= 1e-9 * scale


@given(point, point)
@settings(max_examples=150)
def test_geodesic_path_stays_on_the_geodesic(u, v):
    path = geodesic_path(u, v)
    assert np.array_equal(path[0], u) and np.array_equal(path[-1], v) and len(path) % 3 == 1
    t = np.linspace(0, 1, 9)[:, None]
    basis = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
    curve = np.concatenate([sum(b * path[i + j] for j, b in enumerate(basis)) for i in range(0, len(path) - 1, 3)])
    # Along the segment the distances to both ends add up to the distance of the ends: an independent definition.
    total = poincare_distance(np.array(u), np.array(v))
    there = poincare_distance(curve, np.array(u)) + poincare_distance(curve, np.array(v))
    assert np.abs(there - total).max() <= 2e-3 * max(total, 1)
    assert np.linalg.norm(curve, axis=1).max() < 1


def poincare_distance(x, y):
    gap = ((x - y) ** 2).sum(axis=-1)
    return np.arccosh(1 + 2 * gap / ((1 - (x**2).sum(axis=-1)) * (1 - (y**2).sum(axis=-1))))


def test_geodesic_through_the_origin_is_straight():
    path = geodesic_path((0.3, 0.4), (-0.6, -0.8 + 1e-12))
    assert np.abs(path[:, 0] * 4 - path[:, 1] * 3).max() < 1e-9
    assert geodesic_circle((0.5, 0.0), (0.0, 0.0)) is None
    same = geodesic_path((0.3, 0.1), (0.3, 0.1))
    assert np.isfinite(same).all()
    # The two forms meet: an arc just above the switch is as straight as the line below it.
    near = geodesic_path((0.5, 0.0), (-0.5, 1e-6))
    assert np.abs(near[:, 1]).max() < 2e-6


# Projection


def lorentz_distance(x, y, k):
    """acosh(-<x, y> / k) sqrt k on full coordinates, in extended precision."""
    x, y = (np.asarray(p, dtype=np.longdouble) for p in (x, y))
    time = [np.sqrt(k + (p**2).sum(axis=-1)) for p in (x, y)]
    return np.sqrt(np.longdouble(k)) * np.arccosh((time[0] * time[1] - (x * y).sum(axis=-1)) / k)


@pytest.mark.parametrize("k", [0.3, 1.0, 4.0])
def test_hyperbolic_distance(k):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 100, 6)) * rng.uniform(0, 4, size=(2, 100, 1))
    np.testing.assert_allclose(hyperbolic_distance(x, y, k=k), lorentz_distance(x, y, k).astype(float), rtol=1e-9)
    assert hyperbolic_distance(x, x, k=k).max() == 0
    origin = np.zeros(6)
    np.testing.assert_allclose(
        hyperbolic_distance(x, origin, k=k), np.sqrt(k) * np.arcsinh(np.linalg.norm(x, axis=1) / np.sqrt(k)), rtol=1e-14
    )


@pytest.mark.parametrize("k", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("centre", ["centroid", "origin"])
def test_a_plane_is_shown_without_distortion(k, centre):
    """Points of an H^2 inside H^7 keep every distance (up to the curvature's unit), wherever the plane lies."""
    rng = np.random.default_rng(2)
    plane = np.linalg.qr(rng.normal(size=(7, 2)))[0].T
    x = 2 * rng.normal(size=(60, 2)) @ plane
    view = to_disk(x, k=k, centre=centre)
    assert view.points.shape == (60, 2) and view.n_pairs == 60 * 59 // 2
    assert view.distortion < 1e-9
    i, j = np.triu_indices(60, 1)
    np.testing.assert_allclose(
        np.sqrt(k) * poincare_distance(view.points[i], view.points[j]), hyperbolic_distance(x[i], x[j], k=k), rtol=1e-6
    )


def test_centroid_is_drawn_at_the_centre():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 5)) + np.array([6.0, 0, 0, 0, 0])
    away, home = to_disk(x, centre="origin"), to_disk(x)
    assert np.linalg.norm(away.points.mean(axis=0)) > 0.8
    assert np.linalg.norm(home.points.mean(axis=0)) < 0.1
    assert home.distortion < away.distortion
    assert f"{home.distortion:.2f}" in home.note


def test_distortion_is_the_mean_relative_error():
    """Three points on orthogonal axes: one axis is lost, so its point falls onto the origin."""
    x = np.diag([np.sinh(3.0), np.sinh(2.0), np.sinh(1.0)])
    view = to_disk(x, centre="origin")
    np.testing.assert_allclose(np.linalg.norm(view.points, axis=1), np.tanh([1.5, 1.0, 0.0]), atol=1e-12)
    right = [math.acosh(math.cosh(a) * math.cosh(b)) for a, b in ((3, 2), (3, 1), (2, 1))]
    seen = [right[0], 3.0, 2.0]
    expected = np.mean([abs(s - t) / t for s, t in zip(seen, right, strict=True)])
    assert view.distortion == pytest.approx(expected, rel=1e-12)


def test_projection_at_the_edges():
    assert np.array_equal(to_disk(np.zeros((3, 4))).points, np.zeros((3, 2)))
    assert math.isnan(to_disk(np.zeros((1, 4))).distortion)
    assert to_disk(np.array([[1.0], [-2.0]])).distortion < 1e-12  # a line, d = 2
    far = to_disk(np.random.default_rng(0).normal(size=(400, 3)) * 1e3)
    assert np.isfinite(far.distortion) and np.linalg.norm(far.points, axis=1).max() < 1 and far.n_pairs == 50_000
    with pytest.raises(ValueError, match=r"shape \(n, d - 1\), got \(3,\)"):
        to_disk(np.zeros(3))
    with pytest.raises(ValueError, match="1 of 2 points are not finite"):
        to_disk(np.array([[1.0, 2.0], [np.nan, 0.0]]))
    with pytest.raises(ValueError, match="unknown centre 'center'"):
        to_disk(np.zeros((2, 3)), centre="center")


def test_drawing_is_deterministic_and_whole():
    points = disk_points(30)
    edges = [(i, (i * 7 + 1) % 30) for i in range(30)]
    args = {"edges": edges, "labels": {3: "cost $5 & <b>"}, "depth": [i % 3 for i in range(30)], "note": "n"}
    svg = draw_disk(points, **args)
    assert svg == draw_disk(points, **args)
    root = ET.fromstring(svg)
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"cost $5 & <b>", "depth", "0", "1", "2", "n"} <= set(texts)
    assert "currentColor" in svg and "#010203" not in svg and "date" not in svg.lower()
    groups = [g for g in root.iter() if g.get("id", "").startswith("PathCollection")]
    uses = [len(list(g.iter("{http://www.w3.org/2000/svg}use"))) for g in groups]
    paths = [len(list(g.iter("{http://www.w3.org/2000/svg}path"))) for g in groups]
    assert sum(uses) == 30 + 3 or sum(uses) >= 30  # every point is drawn
    assert max(paths) >= 30  # and every edge


def test_drawing_mistakes_are_named():
    with pytest.raises(ValueError, match="1 points are not inside the unit circle, the first is 1"):
        draw_disk([(0, 0), (1, 0)])
    with pytest.raises(ValueError, match=r"name points \[5\], but there are 1"):
        draw_disk([(0, 0)], edges=[(0, 5)])
    with pytest.raises(ValueError, match="2 depths for 1 points"):
        draw_disk([(0, 0)], depth=[1, 2])
    with pytest.raises(ValueError, match=r"shape \(n, 2\), got \(1, 3\)"):
        draw_disk([(0, 0, 0)])
    assert draw_disk(np.zeros((0, 2))).count("<svg") == 1
