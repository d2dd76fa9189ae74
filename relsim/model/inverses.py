"""Facts with every relation read backwards too, which is what an inverse relation is compared with."""

from __future__ import annotations

from dataclasses import replace

import torch

from relsim.facts import Facts

__all__ = ["INVERSE", "with_inverses"]

INVERSE = "inverse of "
"""Before the name of a relation that is read backwards."""


def with_inverses(facts: Facts) -> Facts:
    """Add the fact (t, r + R, h) for each (h, r, t): relation ``r + R`` is r with its arguments swapped.

    A fact distribution fitted to these gives ``KL(r || s + R)``, which is small where r is the inverse of s.

    Raises
    ------
    ValueError
        When a relation's name already is that of another's inverse.

    Examples
    --------
    >>> facts = with_inverses(Facts.from_triples([("Paris", "capital of", "France")]))
    >>> facts.relations, facts.entities[int(facts.head[1])]
    (['capital of', 'inverse of capital of'], 'France')
    """
    head_type, tail_type = facts.head_type, facts.tail_type
    if head_type is not None and tail_type is not None:
        head_type, tail_type = torch.cat([head_type, tail_type]), torch.cat([tail_type, head_type])
    return replace(
        facts,
        head=torch.cat([facts.head, facts.tail]),
        relation=torch.cat([facts.relation, facts.relation + facts.num_relations]),
        tail=torch.cat([facts.tail, facts.head]),
        count=facts.count.repeat(2),
        relations=facts.relations + [INVERSE + name for name in facts.relations],
        head_type=head_type,
        tail_type=tail_type,
    )
