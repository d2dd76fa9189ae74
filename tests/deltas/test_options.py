"""Options are held to their types whoever gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import deltas
from deltas import DeltaError


def plain(name: str) -> Any:
    """A method without the types that the tests' import hook holds its __init__ to, as users have it."""
    return dataclass(frozen=True, kw_only=True)(type(name, (deltas.DELTAS[name],), {}))


LoRA, KronA, IA3, VPT = plain("LoRA"), plain("KronA"), plain("IA3"), plain("VPT")
PrefixTuning, PromptTuning, SparseAdapter = plain("PrefixTuning"), plain("PromptTuning"), plain("SparseAdapter")


def test_one_name_or_number_stands_for_several() -> None:
    assert LoRA(roles="attention.query").roles == ("attention.query",)
    assert LoRA(roles=["all"]).roles == ("all",)
    assert LoRA(layers=0).layers == (0,)
    assert KronA(left=[2, 4]).left == (2, 4)
    assert deltas.parse("LoRA", {"roles": "attention.query"}) == deltas.LoRA(roles=("attention.query",))


def test_numbers_of_other_libraries_become_python_s() -> None:
    spec = LoRA(rank=np.int64(4), alpha=np.float32(2), dropout=0)
    assert (type(spec.rank), type(spec.alpha), type(spec.dropout)) == (int, float, float)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(rank="8"), r"a whole number as rank, got '8'"),
        (lambda: LoRA(rank=8.0), r"a whole number as rank, got 8\.0"),
        (lambda: LoRA(rank=True), "a whole number as rank"),
        (lambda: LoRA(alpha=float("nan")), "a finite number as alpha"),
        (lambda: LoRA(dropout=None), "a finite number as dropout"),
        (lambda: LoRA(stabilised=1), "true or false as stabilised"),
        (lambda: LoRA(roles=(1,)), "names as roles"),
        (lambda: LoRA(layers=("0",)), "whole numbers as layers"),
        (lambda: PrefixTuning(init_std=-1.0), "a number >= 0 as init_std"),
        (lambda: PromptTuning(init_std=-0.1), "a number >= 0 as init_std"),
        (lambda: VPT(length="2"), "a whole number as length"),
        (lambda: IA3(inputs=3), "names as inputs"),
        (lambda: SparseAdapter(sparsity="half"), "a finite number as sparsity"),
        (lambda: deltas.parse("LoRA", {"rank": "8"}), "a whole number as rank"),
    ],
)
def test_other_types_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DeltaError, match=message):
        make()


@dataclass(frozen=True, kw_only=True)
class Mine(deltas.Delta):
    """A method of somebody else's, without super() in its check."""

    number: int = 1
    anything: object = None

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError("number")


def test_methods_of_others_are_held_to_their_types_too() -> None:
    with pytest.raises(DeltaError, match="Mine takes a whole number as number"):
        Mine(number="1")
    with pytest.raises(ValueError, match="number"):
        Mine(number=0)
    assert Mine(anything=[1]).anything == [1]
