"""The quantiser against its definition, and what is packed without loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deltas.activations import BITS, Noise, quantise
from deltas.activations.groups import Groups, mixed, pack_bits, unpack_bits
from deltas.activations.lossless import Narrow, TwoValued, lossless

CPU = torch.device("cpu")
NOISE = Noise(0, device=CPU)


def packed(x: Tensor, bits: int, *, group: int = 64, offset: int = 0) -> Groups:
    found = quantise(x, bits, group=group, noise=NOISE, offset=offset)
    assert found is not None
    return found


def drawn(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(count, generator=generator) + torch.randn(1, generator=generator) * 5).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", [1, 63, 64, 65, 4099, 70_001])
def test_every_number_is_within_a_step_and_inside_the_range_of_its_group(
    bits: int, count: int, dtype: torch.dtype
) -> None:
    x = drawn(count, dtype=dtype)
    found = packed(x, bits, offset=17).restore()
    assert found.dtype == dtype and found.shape == x.shape
    for start in range(0, count, 64):
        group, got = x[start : start + 64].double(), found[start : start + 64].double()
        low, high = float(group.min()), float(group.max())
        # bfloat16 has 8 bits: each end moves by at most one part in 128 of itself, and the step by one in 128 of itself.
        slack = (abs(low) + (high - low)) / 64 + abs(float(got.abs().max())) * torch.finfo(dtype).eps
        step = (high - low) / (2**bits - 1) + slack
        assert float((got - group).abs().max()) <= step
        assert float(got.min()) >= low - slack and float(got.max()) <= high + slack


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=200),
    st.sampled_from(BITS),
    st.sampled_from([8, 64, 256]),
)
def test_any_finite_numbers_come_back_finite_and_within_their_range(values: list[float], bits: int, group: int) -> None:
    x = torch.tensor(values)
    found = packed(x, bits, group=group, offset=3).restore()
    assert torch.isfinite(found).all()
    span = float(x.double().max() - x.double().min())
    reach = (span + float(x.double().abs().max())) / 32
    assert float((found.double() - x.double()).abs().max()) <= span / (2**bits - 1) + reach + 1e-37


@pytest.mark.parametrize("bits", BITS)
def test_rounding_is_unbiased(bits: int) -> None:
    """Over many offsets the mean is the number itself: a z-test of every number, and of all of them together."""
    x, draws = drawn(640), 400
    found = torch.stack([packed(x, bits, offset=1237 * i).restore().double() for i in range(draws)])
    errors = found - x.double()
    spread = errors.std(0).clamp(min=1e-9) / math.sqrt(draws)
    z = errors.mean(0) / spread
    sure = errors.std(0) > 1e-6  # the ends of a group are not rounded at all
    assert float(z[sure].abs().max()) < 5
    assert abs(float(z[sure].mean())) < 5 / math.sqrt(int(sure.sum()))


def test_the_table_of_noise_is_uniform_and_draws_from_no_global_generator() -> None:
    before = torch.get_rng_state()
    noise = Noise(5, device=CPU)
    half = noise.table[: len(noise.table) // 2]
    places = (torch.arange(len(half)) + 0.5) / len(half)
    assert torch.equal(half.sort().values, places.float())
    assert torch.equal(noise.at(7, 0, 300, 300), noise.at(7, 0, len(half), len(half))[:300])
    several = torch.cat([noise.at(7, place, 96, 96) for place in range(4)])
    assert torch.equal(noise.at(7, 0, 4 * 96, 96), several)
    starts = [mixed(i) >> 16 for i in range(40_000)]  # far apart: as many different ones as of draws at random, 29,900
    assert 29_000 < len(set(starts)) < 31_000
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("bits", "group", "each"), [(8, 64, 8.5), (4, 64, 4.5), (2, 64, 2.5), (1, 64, 1.5), (4, 256, 4.125)]
)
def test_bytes_are_the_bits_and_four_bytes_a_group(bits: int, group: int, each: float) -> None:
    assert packed(drawn(64 * 1024), bits, group=group).nbytes * 8 == each * 64 * 1024


@pytest.mark.parametrize("bits", BITS)
def test_equal_numbers_and_zero_come_back_nearly_equal_and_zero(bits: int) -> None:
    assert torch.equal(packed(torch.zeros(100), bits).restore(), torch.zeros(100))
    found = packed(torch.full((100,), 3.3), bits, offset=9).restore()
    assert float((found - 3.3).abs().max()) < 3.3 / 100
    tiny = torch.full((100,), 1e-42)  # below the least normal number
    assert float(packed(tiny, bits).restore().abs().max()) <= 1e-41


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    x = drawn(300)
    x[200] = value
    assert quantise(x, 4, group=64, noise=NOISE, offset=0) is None


@pytest.mark.parametrize("bits", BITS)
def test_codes_come_back_to_the_bit(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (7, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = pack_bits(codes, bits)
    assert found.numel() * 8 == codes.numel() * bits
    assert torch.equal(unpack_bits(found, bits), codes)


@pytest.mark.parametrize(
    "x",
    [
        torch.tensor([True, False, True] * 7),
        torch.tensor([0.0, 1.25] * 11),
        torch.tensor([0.0, -float("inf"), 0.0]),
        torch.tensor([0.0, -0.0, -0.0]),
        torch.tensor([float("nan"), 1.0]),
        torch.full((9,), 2.5),
        torch.tensor([0.0, 1.0] * 8, dtype=torch.bfloat16),
        torch.arange(-3, 100),
        torch.tensor([0, 70_000]),
        torch.tensor([0, 200], dtype=torch.int32),
    ],
    ids=["bool", "dropout", "mask", "signed zeros", "NaN", "constant", "bf16", "int8", "int32", "uint8"],
)
def test_what_needs_few_bits_comes_back_to_the_bit(x: Tensor) -> None:
    found = lossless(x)
    assert isinstance(found, TwoValued | Narrow)
    back = found.restore()
    assert back.dtype == x.dtype and torch.equal(back.view(torch.uint8), x.view(torch.uint8))


def test_integers_take_the_least_type_that_holds_them() -> None:
    found = [lossless(torch.tensor([0, top])) for top in (255, 256, 40_000, 2**31)]
    assert [f.values.dtype if isinstance(f, Narrow) else None for f in found] == [
        torch.uint8,
        torch.int16,
        torch.int32,
        None,
    ]


@pytest.mark.parametrize(
    "x", [torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, float("nan"), 1.0]), torch.tensor([2**40])]
)
def test_what_needs_all_its_bits_has_no_shorter_form(x: Tensor) -> None:
    assert lossless(x) is None
