"""Small random graphs."""

from __future__ import annotations

import torch

from tasks.data.kg import KnowledgeGraph, graph_from_triples


def graph(entities: int = 12, relations: int = 3, seed: int = 0, *, negatives: bool = False) -> KnowledgeGraph:
    """40 training, 10 validation and 10 test triples, with as many false ones if asked for."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.stack([torch.randint(0, n, (60,), generator=g) for n in (entities, relations, entities)], 1).tolist()
    named = [(f"e{h:02}", f"r{r}", f"e{t:02}") for h, r, t in rows]
    false = {}
    if negatives:
        seen = {name for row in named for name in row}
        known, every = set(named), sorted(name for name in seen if name[0] == "e")
        wrong = [(h, r, every[(every.index(t) + 5) % len(every)]) for h, r, t in named[40:]]
        wrong = [row for row in wrong if row not in known]
        false = {"valid": wrong[:8], "test": wrong[8:]}
    return graph_from_triples(
        "g", {"train": named[:40], "valid": named[40:50], "test": named[50:]}, negatives=false or None
    )
