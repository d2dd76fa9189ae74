"""The sampler of the paper: plain Monte Carlo over facts. A baseline, and an independent check of the pooled one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.divergence import centred_features, head_prob, tail_blocks

__all__ = ["AncestralEstimate", "ancestral_kl"]


@dataclass(frozen=True, eq=False)
class AncestralEstimate:
    """Plain Monte Carlo estimate of the divergences: the mean and variance of sampled log-ratios.

    Parameters
    ----------
    head, tail
        float64 ``(R, R)``: means of the head and the tail part of the log-ratio, in nats; either may be negative.
    variance
        float64 ``(R, R)``: variance of their sum, sample variance over number of samples.
    heads
        Number of distinct heads drawn.
    """

    head: Tensor
    tail: Tensor
    variance: Tensor
    heads: int


@torch.no_grad()
def ancestral_kl(
    dist: FactDistribution,
    samples: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
    reuse_heads: bool = True,
) -> AncestralEstimate:
    r"""The sampler of the paper: heads, then tails, from relation i, and the mean log-ratio against every j.

    Parameters
    ----------
    dist
        The model.
    samples
        Facts drawn from each relation, at least 2.
    generator
        Source of the draws.
    dtype
        Of the logits.
    reuse_heads
        Share the normalisers between samples with the same head. False costs what the paper's procedure costs, and
        has the same distribution.

    References
    ----------
    Chen et al., Quantifying Similarity between Relations with Fact Distribution, ACL 2019, section 3.2.
    """
    if samples < 2:
        raise ValueError(f"samples is {samples}, expected at least 2: one sample has no standard error")
    relations, features = dist.num_relations, centred_features(dist, dtype)
    probability = head_prob(dist)
    drawn = torch.multinomial(probability, samples, replacement=True, generator=generator).flatten()
    owner = torch.arange(relations).repeat_interleave(samples)
    if reuse_heads:
        heads, inverse = torch.unique(drawn, return_inverse=True)
    else:
        heads, inverse = drawn, torch.arange(len(drawn))
    order = torch.argsort(inverse, stable=True)
    members = torch.split(order, torch.bincount(inverse, minlength=len(heads)).tolist())
    log_head = probability.log()
    ratio_head = torch.zeros(relations, relations, dtype=torch.float64)
    ratio_tail = ratio_head.clone()
    values = torch.empty(relations * samples, relations, dtype=torch.float64)
    for start, block in tail_blocks(dist, heads):
        for k, natural in enumerate(block.to(dtype)):
            which = members[start + k]
            rows = owner[which]
            log_tail = torch.log_softmax(natural @ features.T, 1)
            tails = torch.multinomial(log_tail[rows].exp(), 1, generator=generator).squeeze(1)
            tail = log_tail[:, tails].T.double()
            tail = tail[torch.arange(len(rows)), rows][:, None] - tail
            head = log_head[rows, heads[start + k]][:, None] - log_head[:, heads[start + k]]
            values[which] = head + tail
            ratio_head.index_add_(0, rows, head)
            ratio_tail.index_add_(0, rows, tail)
    spread = values.view(relations, samples, relations).var(1) / samples
    distinct = len(torch.unique(drawn))
    return AncestralEstimate(ratio_head / samples, ratio_tail / samples, spread, distinct)
