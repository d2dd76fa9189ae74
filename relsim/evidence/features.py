"""The features of a pair of relations that a calibration turns into a probability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relsim.baselines import count_kl_max, pair_jaccard, tfidf_cosine, token_overlap
from relsim.evidence.contradiction import Contradiction
from relsim.evidence.counts import At, Counts, Float
from relsim.evidence.encoding import Encoded
from relsim.evidence.profiles import Profiles

__all__ = ["Pairs", "count_features", "fact_features", "neural_features", "text_features"]

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def count_features(counts: Counts, at: At = None, *, swapped: bool = False) -> dict[str, Float]:
    """Features cheap enough for every pair, in the shape of ``relsim.evidence.counts.dot(..., at)``: they choose candidates.

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


def fact_features(counts: Counts, at: Pairs, found: Contradiction, *, swapped: bool = False) -> dict[str, Float]:
    """Features of pairs with facts to go by, ``(P,)`` each.

    ``log_kl`` and ``tfidf`` as in ``count_features``; ``contained = log((agreed + 1/2) / (n + 1))`` with n the distinct
    facts of the smaller relation; ``deficit``, how far agreement stays below that of two samples of one relation, in
    log, head and tail together; ``log_n``.
    """
    support = counts.facts.support.numpy()
    smaller = np.minimum(support[at[0]], support[at[1]]).astype(np.float64)
    return {
        "log_kl": np.log1p(count_kl_max(counts, at, swapped=swapped)),
        "tfidf": tfidf_cosine(counts, at, swapped=swapped),
        "contained": np.log((found.head.agreed + 0.5) / (smaller + 1.0)),
        "deficit": found.head.deficit + found.tail.deficit,
        "log_n": np.log(smaller),
    }


def text_features(
    counts: Counts, at: Pairs, profiles: Profiles, encoded: Encoded | None = None, *, swapped: bool = False
) -> dict[str, Float]:
    """Features of pairs with few facts, ``(P,)`` each: what the phrases and the kinds of their arguments say.

    ``tokens``, ``tfidf``, ``root_pairs`` as in ``count_features``; ``words``, ``everything`` and with types ``kinds``,
    ``signatures`` of :class:`relsim.evidence.profiles.Profiles`; with an encoder, ``sense_VIEW`` of
    :class:`relsim.evidence.encoding.Encoded`, which reads from left to right and so is not there when swapped.
    """
    out = count_features(counts, at, swapped=swapped)
    del out["log_kl"]
    names = ["words", "everything", *(("kinds", "signatures") if profiles.types is not None else ())]
    out |= {name: getattr(profiles, name)(*at, swapped=swapped) for name in names}
    if encoded is not None and not swapped:
        out |= {f"sense_{view}": encoded.cosine(view, *at) for view in encoded.views}
    return out


def neural_features(kl_ab: Float, kl_ba: Float, local: Float) -> dict[str, Float]:
    """Features of the neural regime from the two directions of a KL divergence in nats, of one shape.

    KL is heavy-tailed, so it enters as ``log(1 + KL)``: the larger direction and the smaller one. ``local`` says how
    much nearer the pair is than its surroundings: :func:`relsim.kl.localscale.local_scaling` of the larger direction.
    """
    return {
        "log_max": np.log1p(np.maximum(kl_ab, kl_ba)),
        "log_min": np.log1p(np.minimum(kl_ab, kl_ba)),
        "local": local,
    }
