"""Coverage of the 95 % intervals of pooled divergences over independent pools, by band of effective sample size.

    python -m benchmarks.relsim_coverage [--models FOLDER] [--pools 200]

CoDEx-S against exact values, for KL and for ``max(KL, KL^T)`` apart, with exact sums over tails at every head of the pool
and with the cheap ones of the two-phase form; and lognormal conditional divergences of growing heaviness, for which the
intervals must hold or be refused. A band that prints intervals at all must cover .93 to .97. One thread; data from
the folder that HYREL_DATA names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.kl.pool import draw_pool, inclusion_probability
from relsim.kl.result import LEAST_ESS
from relsim.kl.sums import TailSums
from relsim.maths.intervals import shrunken_skewness, skewed_interval
from relsim.similarity import similarity

from .common import asked, row, save
from .relsim_models import apart, arguments, fitted

BANDS = ((0.0, LEAST_ESS), (LEAST_ESS, 20.0), (20.0, 50.0), (50.0, float("inf")))
LOW, HIGH = 0.93, 0.97
# Heads of the pool, and tails of the cheap sums (0: all tails).
DESIGNS = ((100, 0), (200, 0), (400, 0), (400, None), (1000, None))
SIGMAS = (0.25, 0.5, 1.0, 1.5)


class Tally:
    """Intervals that held, intervals given, and all, by band."""

    def __init__(self) -> None:
        self.held: dict[tuple[float, float], float] = defaultdict(float)
        self.given: dict[tuple[float, float], float] = defaultdict(float)
        self.all: dict[tuple[float, float], float] = defaultdict(float)

    def add(self, ess: Tensor, low: Tensor, high: Tensor, truth: Tensor) -> None:
        """Count one pool; ``ess (R, R)`` is the smaller one behind an interval."""
        given = torch.isfinite(high)
        held = given & (low <= truth + 1e-9) & (truth <= high + 1e-9)
        for band in BANDS:
            inside = (band[0] <= ess) & (ess < band[1])
            inside.fill_diagonal_(False)
            self.all[band] += float(inside.sum())
            self.given[band] += float((inside & given).sum())
            self.held[band] += float((inside & held).sum())

    def rows(self, title: str, pools: int) -> Iterator[dict[str, Any]]:
        """Coverage of the intervals given, and the share of those refused."""
        for band in BANDS:
            if not self.all[band]:
                continue
            name = f"{title}, effective heads {band[0]:.0f} to {band[1]:.0f}".replace("to inf", "or more")
            refused = 1.0 - self.given[band] / self.all[band]
            print(f"{name}: refused {refused:.3f}", end="")
            yield row(f"{name}: intervals refused", refused, "1", n=pools)
            # A handful of intervals says nothing of coverage.
            if self.given[band] >= 50 * pools:
                value = self.held[band] / self.given[band]
                print(f", coverage {value:.3f} of {self.given[band]:.0f}", end="")
                yield row(
                    f"{name}: coverage", value, "1", n=int(self.given[band]), target=f"{LOW} to {HIGH}",
                    met=LOW <= value <= HIGH,
                )  # fmt: skip
            print()


def on_model(name: str, model: FactDistribution, pools: int) -> Iterator[dict[str, Any]]:
    exact = similarity(model, method="exact").kl
    worst = torch.maximum(exact, exact.T)
    for heads, tails in DESIGNS:
        tallies = {"kl": Tally(), "max": Tally()}
        errors = []
        for seed in range(pools):
            found = similarity(model, heads=heads, tails=tails, seed=seed)
            ess = found.ess[:, None].expand_as(exact)
            tallies["kl"].add(ess, *found.interval(), exact)
            tallies["max"].add(torch.minimum(ess, ess.T), *found.interval(of="max"), worst)
            errors.append(found.kl - exact)
        title = f"{name}, {heads} heads, " + ("all tails" if tails == 0 else "a sample of tails")
        bias = torch.stack(errors).mean(0)
        yield row(f"{title}: largest mean error of a pair", float(apart(bias).abs().max()), "nats", n=pools)
        for of, label in (("kl", "KL"), ("max", "max of both directions")):
            yield from tallies[of].rows(f"{title}, {label}", pools)


def heavy_tailed(sigma: float, pools: int, *, heads: int = 200, size: int = 12) -> Iterator[dict[str, Any]]:
    """Lognormal divergences of 2,000 heads, 12 relations; the larger sigma, the rarer the heads that carry the mean."""
    generator = torch.Generator().manual_seed(0)
    prob = torch.softmax(2.0 * torch.randn(size, 2000, generator=generator).double(), 1)
    divergence = torch.exp(sigma * torch.randn(2000, size, size, generator=generator).double())
    divergence.diagonal(dim1=1, dim2=2).zero_()
    truth = torch.einsum("ih,hij->ij", prob, divergence)
    inclusion, tally = inclusion_probability(prob, heads), Tally()
    for _ in range(pools):
        pool = draw_pool(prob, heads, generator=generator, inclusion=inclusion)
        sums = TailSums.zeros(size)
        sums.add_block(divergence[pool.heads], pool.weight.T, pool.variance.T)
        mean, variance = sums.estimate()
        skewness = shrunken_skewness(sums.skewness())[:, None]
        low, high = skewed_interval(mean, variance.sqrt(), pool.df[:, None], skewness, level=0.95)
        tally.add(pool.ess[:, None].expand_as(mean), low, high, truth)
    yield from tally.rows(f"lognormal, sigma {sigma:g}", pools)


def main() -> None:
    parser, data = arguments(__doc__)
    parser.add_argument("--pools", type=int, default=200, help="independent pools of each design")
    options = parser.parse_args()
    if data is None:
        return
    model, rows, _ = fitted("codex", data, options.models)
    rows += on_model("CoDEx-S", model, options.pools)
    for sigma in SIGMAS:
        rows += heavy_tailed(sigma, options.pools)
    print(save("relsim_coverage", asked("relsim_coverage"), rows, threads=1))


if __name__ == "__main__":
    main()
