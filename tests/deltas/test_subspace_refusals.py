"""Spaces that are refused: what was given, and nothing of it kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deltas import DeltaError
from deltas.subspace import IntrinsicSubspace, random_subspace


def solutions(seed: int = 0) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"t{i}": {"A": torch.randn(40, generator=generator), "B": torch.randn(70, generator=generator)}
        for i in range(5)
    }


def test_a_refused_approximation_leaves_the_space_as_it_was() -> None:
    rows = solutions()
    space = IntrinsicSubspace(3).approximate(rows, steps=3)
    before = space.point("t0")
    for broken in ({"x": {"A": torch.zeros(40), "B": torch.ones(70)}}, {"x": {"keys": torch.ones(4)}}):
        with pytest.raises(DeltaError):
            space.approximate(broken, steps=3)
        assert torch.equal(space.point("t0"), before) and space.methods == ["A", "B"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: IntrinsicSubspace(3).prepare({"x": {"keys": torch.ones(4)}}),
            "a method's name that cannot be used",
        ),
        (lambda rows: IntrinsicSubspace(3).prepare({"x": {"a.b": torch.ones(4)}}), "the name of a method has no dot"),
        (lambda rows: IntrinsicSubspace(3, {"A": "dense"}).prepare(rows), "method in projector 'B'"),
        (
            lambda rows: IntrinsicSubspace(3).prepare(rows, starts={"A": torch.full((40,), torch.nan)}),
            "start of A is not",
        ),
        (lambda rows: IntrinsicSubspace(2, reconstruction=float("nan")), "reconstruction is the weight of a loss"),
        (
            lambda rows: IntrinsicSubspace(2).prepare(rows).optimise(lambda v, step: v.detach().sum(), via="A"),
            "the loss does not depend on the vector",
        ),
    ],
)
def test_mistakes_are_named(change: Any, message: str) -> None:
    with pytest.raises(DeltaError, match=message):
        change(solutions())


def test_a_start_of_another_dtype_is_taken() -> None:
    space = IntrinsicSubspace(2).prepare(solutions())
    point = space.optimise(lambda v, step: v.square().sum(), via="A", steps=2, start=torch.ones(2, dtype=torch.float64))
    assert point.dtype == torch.float32


def test_stored_spaces_are_whole(tmp_path: Path) -> None:
    """Files of two spaces, changed sizes and values that are not finite are refused, for projectors drawn by a seed too."""
    one = IntrinsicSubspace(3, "fastfood", seed=1).approximate(solutions(1), steps=3)
    two = IntrinsicSubspace(3, "fastfood", seed=2).approximate(solutions(2), steps=3)
    one.save(tmp_path / "one")
    two.save(tmp_path / "two")
    loaded = IntrinsicSubspace.load(tmp_path / "one")
    assert torch.equal(loaded.decode("A", torch.ones(3)), one.decode("A", torch.ones(3)))
    shutil.copytree(tmp_path / "one", tmp_path / "mixed")
    shutil.copy(tmp_path / "two" / "subspace.json", tmp_path / "mixed")
    with pytest.raises(DeltaError, match="are not of one space, or were changed"):
        IntrinsicSubspace.load(tmp_path / "mixed")
    path = tmp_path / "one" / "subspace.json"
    document = json.loads(path.read_text())
    document["methods"][0]["size"] += 1
    path.write_text(json.dumps(document))
    with pytest.raises(DeltaError, match="were changed"):
        IntrinsicSubspace.load(tmp_path / "one")
    document.pop("sha256")
    document["methods"][0]["size"] -= 1
    path.write_text(json.dumps(document))  # as earlier versions stored it
    tensors = load_file(path.with_name("subspace.safetensors"))
    tensors["A.scale"] = torch.tensor(float("nan"))
    save_file(tensors, path.with_name("subspace.safetensors"))
    with pytest.raises(DeltaError, match=r"A\.scale is not finite"):
        IntrinsicSubspace.load(tmp_path / "one")


def test_random_directions_of_a_large_method_take_no_matrix() -> None:
    rows = {"x": {"A": torch.ones(40), "Full": torch.ones(100_000)}}
    space = random_subspace(rows, 20, own={"Full": "fastfood"})
    held = sum(value.numel() for value in space.codec("Full").projector.state_dict().values())
    assert held < 20 * 100_000 / 10
    assert not any(value.requires_grad for value in space.codec("Full").projector.parameters())
    found = space.codec("Full").projector.matrix()
    assert torch.linalg.svdvals(found).min() > 0.5 and torch.linalg.svdvals(found).max() < 2.0
    again = random_subspace(rows, 20, own={"Full": "fastfood"}, seed=1)
    assert not torch.equal(again.codec("Full").projector.matrix(), found)
