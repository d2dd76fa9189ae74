"""The features of a pair of relations that a calibration turns into a probability."""

from __future__ import annotations

import numpy as np

from relsim.baselines import count_kl_max, pair_jaccard, tfidf_cosine, token_overlap
from relsim.counts import At, Counts, Float

__all__ = ["count_features", "neural_features"]


def count_features(counts: Counts, at: At = None, *, swapped: bool = False) -> dict[str, Float]:
    """Features of the count and text regime, each in the shape of ``relsim.counts.dot(..., at)``.

    ``log_kl = log(1 + max of the smoothed count KLs)``, ``tfidf`` (cosine), ``root_pairs`` (square root of the pair
    Jaccard: the overlap of two random halves is small even for one relation), ``tokens`` (overlap weighted by rarity;
    0 when swapped, because the words of a phrase do not say which argument comes first).
    """
    tokens = token_overlap(counts, at)
    return {
        "log_kl": np.log1p(count_kl_max(counts, at, swapped=swapped)),
        "tfidf": tfidf_cosine(counts, at, swapped=swapped),
        "root_pairs": np.sqrt(pair_jaccard(counts, at, swapped=swapped)),
        "tokens": np.zeros_like(tokens) if swapped else tokens,
    }


def neural_features(kl_ab: Float, kl_ba: Float) -> dict[str, Float]:
    """Features of the neural regime from the two directions of a KL divergence in nats, of one shape.

    KL is heavy-tailed, so it enters as ``log(1 + KL)``: the larger direction and the smaller one.
    """
    return {"log_max": np.log1p(np.maximum(kl_ab, kl_ba)), "log_min": np.log1p(np.minimum(kl_ab, kl_ba))}
