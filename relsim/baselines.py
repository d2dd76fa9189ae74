"""Count and text measures between relations: what a fact distribution must beat, and what decides without enough facts.

Every measure takes ``Facts`` or ``Counts`` and where to evaluate (``at``: every pair, rows, or pairs, see
``relsim.evidence.counts.dot``). With ``swapped=True`` relation i is compared with relation j, head and tail of j exchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relsim.evidence.counts import At, Counts, Float, dot
from relsim.facts import Facts
from relsim.maths.rows import row_shares, row_sums, tfidf

__all__ = [
    "MEASURES",
    "argument_jaccard",
    "cosine",
    "count_cosine",
    "count_kl",
    "count_kl_max",
    "jensen_shannon",
    "pair_jaccard",
    "tfidf_cosine",
    "token_overlap",
]

Source = Facts | Counts


def _counts(source: Source) -> Counts:
    return Counts(source) if isinstance(source, Facts) else source


def _sides(counts: Counts, swapped: bool) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(matrix of i, matrix of j) for the first and the second argument."""
    other = (counts.tail, counts.head) if swapped else (counts.head, counts.tail)
    return (counts.head, other[0]), (counts.tail, other[1])


def _outer(a: Float, b: Float, at: At) -> tuple[Float, Float]:
    """Per-row numbers of i and of j in the shape of ``dot(..., at)``."""
    if isinstance(at, tuple):
        return a[at[0]], b[at[1]]
    return (a if at is None else a[at])[:, None], b[None, :]


def _jaccard(shared: Float, a: Float, b: Float, at: At) -> Float:
    left, right = _outer(a, b, at)
    union = left + right - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def pair_jaccard(source: Source, at: At = None, *, swapped: bool = False) -> Float:
    """Jaccard of the sets of argument pairs, ``|A & B| / |A | B|``, 0 to 1."""
    counts = _counts(source)
    other = counts.pair_swapped if swapped else counts.pair
    return _jaccard(dot(counts.pair, other, at), row_sums(counts.pair), row_sums(other), at)


def argument_jaccard(source: Source, at: At = None, *, swapped: bool = False) -> Float:
    """Mean of the Jaccard of the head sets and of the tail sets, 0 to 1."""
    total: Any = 0.0
    for a, b in _sides(_counts(source), swapped):
        a, b = a.sign(), b.sign()
        total = total + 0.5 * _jaccard(dot(a, b, at), row_sums(a), row_sums(b), at)
    return np.asarray(total)


def _cosine(sides: Any, at: At) -> Float:
    inner: Any = 0.0
    square_a: Any = 0.0
    square_b: Any = 0.0
    for a, b in sides:
        inner = inner + dot(a, b, at)
        square_a, square_b = square_a + row_sums(a.multiply(a)), square_b + row_sums(b.multiply(b))
    left, right = _outer(np.sqrt(square_a), np.sqrt(square_b), at)
    norm = left * right
    return np.asarray(np.divide(inner, norm, out=np.zeros_like(inner), where=norm > 0))


def count_cosine(source: Source, at: At = None, *, swapped: bool = False) -> Float:
    """Cosine of the concatenated head and tail counts, 0 to 1."""
    return _cosine(_sides(_counts(source), swapped), at)


def tfidf_cosine(source: Source, at: At = None, *, swapped: bool = False) -> Float:
    """Cosine of head and tail counts as ``log(1 + count) * log(1 + R / df)``, 0 to 1, df the relations with the entity.

    With ``swapped`` df counts a relation with the entity on either side, so both relations are weighted alike.
    """
    counts = _counts(source)
    if swapped:
        either = (counts.head.sign() + counts.tail.sign()).sign()
        df = [np.asarray(either.sum(axis=0)).reshape(-1)] * 2
    else:
        df = [np.asarray(matrix.sign().sum(axis=0)).reshape(-1) for matrix in (counts.head, counts.tail)]
    sides = []
    for (a, b), frequency in zip(_sides(counts, swapped), df, strict=True):
        sides.append((tfidf(a, frequency), tfidf(b, frequency)))
    return _cosine(sides, at)


def count_kl(
    source: Source,
    at: At = None,
    *,
    smoothing: float = 30.0,
    swapped: bool = False,
    side: str = "both",
    reverse: bool = False,
) -> Float:
    """KL divergence in nats between smoothed count distributions, product of head and tail marginals.

    ``P_i(e) = (c_i(e) + a b(e)) / (n_i + a)`` with b the share of e among all heads (tails); then
    ``KL(P_i || P_j) = log((n_j + a) / (n_i + a)) + S_ii - S_ij``, ``S_ij = sum_e P_i(e) log(1 + c_j(e) / (a b(e)))``,
    which needs the entities of the two relations only. ``kl[i, j] = KL(P_i || P_j) >= 0``, 0 on the diagonal.

    Parameters
    ----------
    source, at, swapped
        See the module. With ``swapped`` b is the share among heads and tails together, the same for both relations.
    smoothing
        a > 0: mentions the background counts for.
    side
        "head", "tail", or "both" (their sum).
    reverse
        Give ``KL(P_j || P_i)`` instead.

    Raises
    ------
    ValueError
        For a smoothing that is not positive, or an unknown side.
    """
    if not smoothing > 0:
        raise ValueError(f"smoothing is {smoothing}, expected above 0")
    if side not in ("head", "tail", "both"):
        raise ValueError(f"side is {side!r}, expected 'head', 'tail' or 'both'")
    counts = _counts(source)
    both = _sides(counts, swapped)
    heads, tails = (
        np.asarray(matrix.sum(axis=0), dtype=np.float64).reshape(-1) for matrix in (counts.head, counts.tail)
    )
    backgrounds = [heads + tails] * 2 if swapped else [heads, tails]
    total: Any = 0.0
    for name, (a, b), mass in zip(("head", "tail"), both, backgrounds, strict=True):
        if side in (name, "both"):
            total = total + _marginal_kl(
                a, b, smoothing * mass / (mass.sum() or 1.0), counts.total, smoothing, at, reverse
            )
    return np.asarray(total)


def _marginal_kl(a: Any, b: Any, prior: Float, n: Float, smoothing: float, at: At, reverse: bool) -> Float:
    """KL(P_i || P_j) for counts a of i and b of j; ``prior`` is a b(e)."""
    safe = np.where(prior > 0, prior, 1.0)

    def gain(matrix: Any) -> Any:
        return matrix.multiply(1.0 / safe).tocsr().log1p()

    def own(matrix: Any, lift: Any) -> Float:
        return np.asarray((row_sums(matrix.multiply(lift)) + lift @ prior) / (n + smoothing))

    gain_a, gain_b = gain(a), gain(b)
    log_n = np.log(n + smoothing)
    left_n, right_n = _outer(n + smoothing, n + smoothing, at)
    if reverse:
        # KL(P_j || P_i): the roles change, the place in the result does not.
        left, right = _outer(log_n, own(b, gain_b) - log_n, at)
        prior_term, _ = _outer(gain_a @ prior, n, at)
        kl = left + right - (dot(gain_a, b, at) + prior_term) / right_n
    else:
        left, right = _outer(own(a, gain_a) - log_n, log_n, at)
        _, prior_term = _outer(n, gain_b @ prior, at)
        kl = left + right - (dot(a, gain_b, at) + prior_term) / left_n
    return _not_negative(kl, "count KL")


def count_kl_max(source: Source, at: At = None, *, smoothing: float = 30.0, swapped: bool = False) -> Float:
    """Larger of the two directions of ``count_kl``, in nats: 0 for equal distributions."""
    counts = _counts(source)
    forward = count_kl(counts, at, smoothing=smoothing, swapped=swapped)
    return np.asarray(np.maximum(forward, count_kl(counts, at, smoothing=smoothing, swapped=swapped, reverse=True)))


def jensen_shannon(source: Source, at: At = None, *, swapped: bool = False) -> Float:
    """Jensen-Shannon divergence of the unsmoothed head shares plus that of the tail shares, in nats, 0 to 2 log 2.

    ``JS(p, q) = log 2 + 1/2 sum (p log p + q log q - (p + q) log(p + q))`` over the entities both have.
    """
    counts = _counts(source)
    size = counts.facts.num_relations
    if isinstance(at, tuple):
        rows, place = np.unique(at[0], return_inverse=True)
    else:
        rows = np.arange(size) if at is None else at
    block = np.zeros((len(rows), size))
    for a, b in _sides(counts, swapped):
        p, q = row_shares(a).sorted_indices(), row_shares(b).tocsc()
        for place_i, i in enumerate(rows):
            mine = slice(p.indptr[i], p.indptr[i + 1])
            found = q[:, p.indices[mine]]
            x = np.repeat(p.data[mine], np.diff(found.indptr))
            y = found.data
            term = x * np.log(x) + y * np.log(y) - (x + y) * np.log(x + y)
            block[place_i] += np.log(2.0) + 0.5 * np.bincount(found.indices, weights=term, minlength=size)
    block = _not_negative(block, "Jensen-Shannon divergence")
    return block[place, at[1]] if isinstance(at, tuple) else block


def _not_negative(values: Float, name: str) -> Float:
    # Sums of up to E rounded terms: anything below this is an error in the formula, not rounding.
    if values.size and float(values.min()) < -1e-10:
        raise ArithmeticError(f"{name} is {float(values.min())}, below 0 by more than rounding")
    return np.asarray(np.maximum(values, 0.0))


def token_overlap(source: Source, at: At = None, *, swapped: bool = False) -> Float:
    """Jaccard of the phrases' tokens weighted by rarity, 0 to 1; see ``relsim.phrases.text.tokens``. Blind to ``swapped``."""
    matrix, weight = _counts(source).text
    weighted = matrix.multiply(weight).tocsr()
    total = row_sums(weighted)
    return _jaccard(dot(weighted, matrix, at), total, total, at)


def cosine(relation_vectors: Any) -> Float:
    """Cosine of learned relation vectors ``(R, d)``, -1 to 1; a zero vector has cosine 0 with every other."""
    vectors: NDArray[np.float64] = np.asarray(relation_vectors, dtype=np.float64)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    return np.asarray(unit @ unit.T)


# Larger means more alike, for ranking: divergences enter with a minus sign.
MEASURES: dict[str, Callable[..., Float]] = {
    "pair_jaccard": pair_jaccard,
    "argument_jaccard": argument_jaccard,
    "count_cosine": count_cosine,
    "tfidf_cosine": tfidf_cosine,
    "count_kl": lambda source, at=None, *, swapped=False: -count_kl_max(source, at, swapped=swapped),
    "jensen_shannon": lambda source, at=None, *, swapped=False: -jensen_shannon(source, at, swapped=swapped),
    "token_overlap": token_overlap,
}
