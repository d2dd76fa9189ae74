"""Similarity of all pairs of relations, with standard errors and a statement of how far they can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.divergence import TailEstimate, evaluating, head_kl, head_prob, tail_kl
from relsim.kl.ancestral import ancestral_kl
from relsim.kl.blocks import BlockStore, fingerprint
from relsim.kl.pool import draw_pool, every_head
from relsim.kl.result import LEAST_ESS, RelationSimilarity
from relsim.kl.sequential import Goal
from relsim.kl.twophase import Sizes, two_phase_kl
from relsim.maths.intervals import shrunken_skewness

__all__ = ["assembled", "similarity"]

_METHODS = ("pooled", "ancestral", "exact", "auto")
_SMALL = 8e9  # multiplications of exact sums over all heads, in float64, that take about 2 seconds
_FEW = 512  # entities up to which sums over a sample of tails save nothing


def similarity(
    dist: FactDistribution,
    *,
    method: str = "pooled",
    stop: str | None = None,
    seed: int = 0,
    heads: int = 3000,
    tails: int | None = None,
    samples: int = 20,
    dtype: torch.dtype | None = None,
    folder: str | Path | None = None,
) -> RelationSimilarity:
    r"""Estimate KL between the fact distributions of all pairs of relations.

    By the chain rule ``KL = KL of heads + E_h KL of tails``. The head part is always exact (but for "ancestral").

    Parameters
    ----------
    dist
        A fitted model with at least two relations. All sums are made on the CPU, wherever it lies.
    method
        "pooled": tail sums at heads drawn once for all relations; the default. "exact": at every head, without
        error, at a cost of E sums over E tails for each relation. "auto": "exact" where that takes seconds, else
        "pooled". "ancestral": the sampler of the paper.
    stop
        None draws one pool of ``heads``. "se<0.1" doubles the effort at each planned look until the median standard
        error over all ordered pairs is below 0.1 nats, "max se<0.1" until the largest is, and "top5" until the 5
        nearest of every relation are certain; intervals are widened for the planned looks. Where the looks come near
        the number of entities, every head is enumerated.
    seed
        Seed of the draws.
    heads
        Heads in the (first) pool; all of them from E on.
    tails
        Tails a relation in the cheap sums of "pooled", whose error is then estimated and taken off
        (:func:`relsim.kl.twophase.two_phase_kl`); by default E / 8, at most 512. 0 sums over all tails at every head of
        the pool, as is done up to 512 entities and with float64.
    samples
        Facts a relation for "ancestral", at least 2.
    dtype
        Of the logits: float64 for "exact", else float32 by default, with an error below 1e-6 times the largest
        ``|x| |f|``, that is under 1e-4 nats on fitted models. All sums over heads are in float64, and values under
        1e-2 nats are recomputed in float64.
    folder
        Where running sums are written, so that a comparison that was killed goes on, to the same bytes.

    Returns
    -------
    RelationSimilarity
        Matrices in nats, with standard errors and warnings.

    Raises
    ------
    ValueError
        For one relation, an unknown method or stopping rule, or parameters that are not finite.
    TypeError
        For heads, tails or samples that are no whole number.

    References
    ----------
    Chen et al., Quantifying Similarity between Relations with Fact Distribution, ACL 2019, equations 5 to 7.
    """
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(_METHODS)}")
    if dist.num_relations < 2:
        raise ValueError(f"the model has {dist.num_relations} relation, expected at least 2 to compare")
    for name, value in (("heads", heads), ("tails", tails), ("samples", samples)):
        if value is not None and not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, expected a whole number")
    if heads < 1:
        raise ValueError(f"heads is {heads}, expected at least 1")
    if tails is not None and tails < 0:
        raise ValueError(f"tails is {tails}, expected 0 (all) or more")
    if stop is not None and method in ("ancestral", "exact"):
        raise ValueError(f"stop={stop!r} needs method='pooled' or 'auto', got {method!r}")
    if folder is not None and method == "ancestral":
        raise ValueError("folder keeps sums over heads, which method='ancestral' has not: leave it out")
    goal = None if stop is None else Goal.parse(stop)
    if dtype not in (None, torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}, expected torch.float32, torch.float64 or None")
    broken = [name for name, value in dist.named_parameters() if not bool(torch.isfinite(value).all())]
    if broken:
        raise ValueError(f"parameters {broken} of the model are not finite: the fit diverged, try a smaller lr")
    if method == "auto":
        method = "exact" if dist.num_relations * dist.num_entities**2 * dist.dim <= _SMALL else "pooled"
    generator = torch.Generator().manual_seed(seed)
    with evaluating(dist) as dist:
        if method == "ancestral":
            return _ancestral(dist, samples, torch.float32 if dtype is None else dtype, generator)
        options = {"method": method, "seed": seed, "heads": heads, "tails": tails, "dtype": str(dtype)}
        store = None if folder is None else BlockStore(folder, fingerprint(dist, options))
        run = _Comparison(dist, head_kl(dist), head_prob(dist), dtype, store)
        return run.exact(0) if method == "exact" else run.pooled(heads, _tails(dist, tails, dtype), goal, generator)


def _ancestral(
    dist: FactDistribution, samples: int, dtype: torch.dtype, generator: torch.Generator
) -> RelationSimilarity:
    drawn = ancestral_kl(dist, samples, generator=generator, dtype=dtype)
    ess = torch.full((dist.num_relations,), float(samples), dtype=torch.float64)
    kl, stderr, warnings = drawn.head + drawn.tail, drawn.variance.sqrt(), _warnings(ess, drawn.variance)
    return RelationSimilarity(kl, stderr, ess, ess - 1.0, drawn.head, drawn.tail, "ancestral", drawn.heads, 1, warnings)


def _tails(dist: FactDistribution, tails: int | None, dtype: torch.dtype | None) -> int:
    if tails is None:
        return 0 if dist.num_entities <= _FEW or dtype == torch.float64 else min(512, dist.num_entities // 8)
    return 0 if tails >= dist.num_entities else tails


@dataclass(frozen=True, eq=False)
class _Comparison:
    dist: FactDistribution
    head: Tensor
    head_prob: Tensor
    dtype: torch.dtype | None
    store: BlockStore | None

    def exact(self, used: int) -> RelationSimilarity:
        """Every head."""
        dtype = torch.float64 if self.dtype is None else self.dtype
        pool = every_head(self.head_prob)
        tail = tail_kl(self.dist, pool, head=self.head, dtype=dtype, store=self.store, part="every-head")
        return assembled("exact", self.head, tail, used + tail.heads, 1)

    def pooled(self, heads: int, tails: int, goal: Goal | None, generator: torch.Generator) -> RelationSimilarity:
        """Pools that double in effort until the goal is reached, averaged by effort."""
        entities = self.dist.num_entities
        exactly = heads if tails == 0 else _columns(heads)  # heads at which everything is summed exactly
        looks = 1 if goal is None else math.ceil(math.log2(entities / exactly + 1.0))
        mean: TailEstimate | None = None
        used = 0
        for look in range(looks):
            double = 2**look
            if (tails == 0 or goal is not None) and exactly * (2 * double - 1) >= entities:
                break
            part = f"look-{look}"
            if tails == 0:
                pool = draw_pool(self.head_prob, heads * double, generator=generator)
                dtype = torch.float32 if self.dtype is None else self.dtype
                drawn = tail_kl(self.dist, pool, head=self.head, dtype=dtype, store=self.store, part=part)
            else:
                sizes = Sizes(
                    min(heads * double, entities), tails, max(64, tails // 8), _own(heads) * double, exactly * double
                )
                drawn = two_phase_kl(
                    self.dist, self.head_prob, sizes, head=self.head, generator=generator, store=self.store, part=part
                )
            used += drawn.heads
            mean = drawn if mean is None else _average(mean, drawn, double - 1.0, float(double))
            result = assembled("pooled", self.head, mean, used, looks)
            if goal is None or goal.reached(result):
                return result
        return self.exact(used)


def assembled(method: str, head: Tensor, tail: TailEstimate, used: int, looks: int) -> RelationSimilarity:
    """The result of exact divergences of the heads ``(R, R)`` and estimated ones of the tails."""
    return RelationSimilarity(
        head + tail.kl, tail.variance.sqrt(), tail.ess, tail.df, head, tail.kl, method, used, looks,
        _warnings(tail.ess, tail.variance), head + tail.lower, shrunken_skewness(tail.skewness),
    )  # fmt: skip


def _columns(heads: int) -> int:
    return max(48, heads // 40)


def _own(heads: int) -> int:
    return max(40, heads // 75)


def _average(one: TailEstimate, two: TailEstimate, a: float, b: float) -> TailEstimate:
    """Mean of independent estimates with weights a and b, which do not depend on what was drawn."""
    first, second = ((w / (a + b)) ** 2 * part.variance for w, part in ((a, one), (b, two)))
    variance = first + second
    df = torch.nan_to_num(variance**2 / (first**2 / one.df + second**2 / two.df), nan=torch.inf)
    skew = sum(part.skewness * share.mean(1) ** 1.5 for part, share in ((one, first), (two, second)))
    return TailEstimate(
        kl=(a * one.kl + b * two.kl) / (a + b),
        variance=variance,
        ess=(a + b) ** 2 / (a**2 / one.ess + b**2 / two.ess),
        df=df.fill_diagonal_(torch.inf),
        lower=torch.maximum(one.lower, two.lower),
        skewness=torch.nan_to_num(skew / variance.mean(1) ** 1.5, nan=0.0),
        heads=one.heads + two.heads,
    )


def _warnings(ess: Tensor, variance: Tensor) -> tuple[str, ...]:
    warnings = []
    few = (ess < LEAST_ESS).nonzero().squeeze(1).tolist()
    if few:
        named = ", ".join(map(str, few[:5])) + (", ..." if len(few) > 5 else "")
        warnings.append(
            f"{len(few)} of {len(ess)} relations (ids {named}) have an effective sample size below {LEAST_ESS:.0f}: "
            "they get no intervals; take more heads, or method='exact'"
        )
    unseen = int(torch.isinf(variance).any(1).sum())
    if unseen:
        warnings.append(f"{unseen} relations rest on a single sampled head: their standard errors are infinite")
    return tuple(warnings)
