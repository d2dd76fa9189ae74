"""Similarity of all pairs of relations, with standard errors and a statement of how far they can be trusted."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from relsim.ancestral import ancestral_kl
from relsim.distribution import FactDistribution
from relsim.divergence import head_kl, head_prob, tail_kl
from relsim.pool import draw_pool, every_head
from relsim.result import RelationSimilarity

__all__ = ["similarity"]

_METHODS = ("pooled", "ancestral", "exact", "auto")
_LEAST_ESS = 10.0


def _goal(stop: str) -> tuple[bool, float]:
    found = re.fullmatch(r"(max )?\s*se\s*<\s*([0-9.eE+-]+)", stop.strip())
    try:
        target = float(found.group(2)) if found else math.nan
    except ValueError:
        target = math.nan
    if found is None or not target > 0.0:
        raise ValueError(
            f"stop is {stop!r}, expected 'se<0.1' (median standard error of all pairs, in nats) or 'max se<0.1' (largest)"
            "; stopping when the order of the nearest relations is certain is not available"
        )
    return found.group(1) is not None, target


def similarity(
    dist: FactDistribution,
    *,
    method: str = "pooled",
    stop: str | None = None,
    seed: int = 0,
    heads: int = 400,
    samples: int = 20,
    dtype: torch.dtype | None = None,
) -> RelationSimilarity:
    r"""Estimate KL between the fact distributions of all pairs of relations.

    By the chain rule ``KL = KL of heads + E_h KL of tails``. The head part is always exact (but for "ancestral").

    Parameters
    ----------
    dist
        A fitted model with at least two relations.
    method
        "pooled": exact tail sums at heads drawn once for all relations; the default. "exact": at every head, without
        error, at a cost of E such sums. "auto": the cheaper of these two. "ancestral": the sampler of the paper.
    stop
        None draws one pool of ``heads``. "se<0.1" doubles the pool at each planned look until the median standard
        error over all ordered pairs is below 0.1 nats, "max se<0.1" until the largest is; when the looks have used
        as many heads as there are entities, every head is enumerated instead.
    seed
        Seed of the draws.
    heads
        Heads in the (first) pool.
    samples
        Facts a relation for "ancestral", at least 2.
    dtype
        Of the logits: float64 for "exact", else float32 by default, with an error below 1e-6 times the largest
        ``|x| |f|``, that is under 1e-4 nats on fitted models. All sums over heads are in float64, and values under
        1e-2 nats are recomputed in float64.

    Returns
    -------
    RelationSimilarity
        Matrices in nats, with standard errors and warnings.

    Raises
    ------
    ValueError
        For one relation, an unknown method or stopping rule, or parameters that are not finite.

    References
    ----------
    Chen et al., Quantifying Similarity between Relations with Fact Distribution, ACL 2019, equations 5 to 7.
    """
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(_METHODS)}")
    if dist.num_relations < 2:
        raise ValueError(f"the model has {dist.num_relations} relation, expected at least 2 to compare")
    if heads < 1:
        raise ValueError(f"heads is {heads}, expected at least 1")
    if stop is not None and method in ("ancestral", "exact"):
        raise ValueError(f"stop={stop!r} needs method='pooled' or 'auto', got {method!r}")
    goal = None if stop is None else _goal(stop)
    if dtype not in (None, torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}, expected torch.float32, torch.float64 or None")
    broken = [name for name, value in dist.named_parameters() if not bool(torch.isfinite(value).all())]
    if broken:
        raise ValueError(f"parameters {broken} of the model are not finite: the fit diverged, try a smaller lr")
    if method == "auto":
        method = "exact" if dist.num_entities <= 2 * heads else "pooled"
    generator = torch.Generator().manual_seed(seed)
    single = torch.float32 if dtype is None else dtype
    if method == "ancestral":
        drawn = ancestral_kl(dist, samples, generator=generator, dtype=single)
        ess = torch.full((dist.num_relations,), float(samples), dtype=torch.float64)
        return _assemble("ancestral", drawn.head, drawn.tail, drawn.variance, ess, ess - 1.0, drawn.heads)
    if method == "exact" or heads >= dist.num_entities:
        return _exact(dist, head_kl(dist), torch.float64 if dtype is None else dtype, 0)
    return _pooled(dist, head_kl(dist), single, heads, goal, generator)


def _exact(dist: FactDistribution, head: Tensor, dtype: torch.dtype, used: int) -> RelationSimilarity:
    pool = every_head(head_prob(dist))
    return _assemble(
        "exact", head, *tail_kl(dist, pool, head=head, dtype=dtype), pool.ess, pool.df, used + len(pool.heads)
    )


def _pooled(
    dist: FactDistribution,
    head: Tensor,
    dtype: torch.dtype,
    heads: int,
    goal: tuple[bool, float] | None,
    generator: torch.Generator,
) -> RelationSimilarity:
    probability = head_prob(dist)
    looks = 1 if goal is None else math.ceil(math.log2(dist.num_entities / heads + 1.0))
    apart = ~torch.eye(len(head), dtype=torch.bool)
    tail, variance = torch.zeros_like(head), torch.zeros_like(head)
    inverse_ess, df = head.new_zeros(len(head)), head.new_zeros(len(head))
    weight = used = 0
    for look in range(looks):
        size = heads * 2**look
        if weight + size >= dist.num_entities:
            return _exact(dist, head, dtype, used)
        pool = draw_pool(probability, size, generator=generator)
        drawn, spread = tail_kl(dist, pool, head=head, dtype=dtype)
        # Pools are independent, and their shares of the mean do not depend on what was drawn.
        tail, variance, weight = tail + size * drawn, variance + size**2 * spread, weight + size
        inverse_ess, df, used = inverse_ess + size**2 / pool.ess, df + pool.df, used + len(pool.heads)
        error = (variance[apart].sqrt()) / weight
        if goal is not None and float(error.max() if goal[0] else error.median()) < goal[1]:
            break
    ess = weight**2 / inverse_ess
    return _assemble("pooled", head, tail / weight, variance / weight**2, ess, df, used, looks)


def _assemble(
    method: str, head: Tensor, tail: Tensor, variance: Tensor, ess: Tensor, df: Tensor, used: int, looks: int = 1
) -> RelationSimilarity:
    warnings = []
    few = (ess < _LEAST_ESS).nonzero().squeeze(1).tolist()
    if few:
        named = ", ".join(map(str, few[:5])) + (", ..." if len(few) > 5 else "")
        warnings.append(
            f"{len(few)} of {len(ess)} relations (ids {named}) have an effective sample size below {_LEAST_ESS:.0f}: "
            "their standard errors are unreliable; take more heads, or method='exact'"
        )
    unseen = int(torch.isinf(variance).any(1).sum())
    if unseen:
        warnings.append(f"{unseen} relations rest on a single sampled head: their standard errors are infinite")
    stderr = variance.sqrt()
    return RelationSimilarity(head + tail, stderr, ess, df, head, tail, method, used, looks, tuple(warnings))
