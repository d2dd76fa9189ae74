"""A type for every entity: given with the facts, or induced by clustering what the entities stand beside."""

from __future__ import annotations

import torch
from torch import Tensor

from relsim.facts import Facts
from relsim.warmstart import entity_vectors

__all__ = ["entity_types", "given_types", "induced_types"]


def entity_types(facts: Facts, *, types: int | None = None, seed: int = 0) -> Tensor:
    """Type id of every entity, int64 ``(E,)``: the given ones where the facts have them, else induced ones."""
    return induced_types(facts, types=types, seed=seed) if facts.head_type is None else given_types(facts)


def given_types(facts: Facts) -> Tensor:
    """The type each entity most often has as an argument, int64 ``(E,)``; one more type for entities without facts.

    Raises
    ------
    ValueError
        For facts that carry no types.
    """
    if facts.head_type is None or facts.tail_type is None:
        raise ValueError("the facts carry no head_type and tail_type: use induced_types(facts)")
    kind = torch.cat([facts.head_type, facts.tail_type])
    size = int(kind.max()) + 1 if len(kind) else 0
    key = torch.cat([facts.head, facts.tail]) * size + kind
    found, place = torch.unique(key, return_inverse=True)
    votes = torch.zeros(len(found), dtype=torch.float64).index_add_(0, place, facts.count.double().repeat(2))
    order = torch.argsort(votes, stable=True)  # the last write, that of the most votes, stays
    result = torch.full((facts.num_entities,), size, dtype=torch.int64)
    for entity, own in zip((found[order] // size).tolist(), (found[order] % size).tolist(), strict=True):
        result[entity] = own
    return result


def induced_types(facts: Facts, *, types: int | None = None, seed: int = 0, dim: int = 32, rounds: int = 30) -> Tensor:
    """Types by spherical k-means over :func:`relsim.warmstart.entity_vectors`, int64 ``(E,)``.

    Parameters
    ----------
    facts
        At least one fact.
    types
        Number of types; by default the root of the number of entities, at most 100. Some may stay empty.
    seed, dim, rounds
        Of the start, width of the vectors, and number of k-means steps.

    Raises
    ------
    ValueError
        For fewer than 1 type, or more than entities.
    """
    size = min(100, max(1, round(facts.num_entities**0.5))) if types is None else types
    if not 1 <= size <= facts.num_entities:
        raise ValueError(f"types is {size}, expected from 1 to the {facts.num_entities} entities")
    vectors = entity_vectors(facts, dim, seed=seed)
    start = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:size]
    centres = vectors[start]
    own = torch.zeros(len(vectors), dtype=torch.int64)
    for _ in range(rounds):
        nearest = (vectors @ centres.T).argmax(1)
        if bool((nearest == own).all()):
            break
        own = nearest
        sums = torch.zeros_like(centres).index_add_(0, own, vectors)
        filled = sums.norm(dim=1) > 0
        centres = torch.where(filled[:, None], torch.nn.functional.normalize(sums, dim=1), centres)
    return own
