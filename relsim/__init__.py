"""How similar two relations of a knowledge base are, by KL divergence between their fact distributions."""

from __future__ import annotations

from relsim.apply import apply_map, read_map, undo_map
from relsim.batches import FactBatches
from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.fit import FitReport, fit, held_out_nll, split_facts
from relsim.ingest import IngestError, IngestReport
from relsim.normalise import argument_key, relation_key
from relsim.openie import read_openie
from relsim.redundancy import redundancy
from relsim.redundant import RedundancyResult
from relsim.result import RelationSimilarity, SimilarPair
from relsim.review import read_review
from relsim.similarity import similarity

__all__ = [
    "FactBatches",
    "FactDistribution",
    "Facts",
    "FitReport",
    "IngestError",
    "IngestReport",
    "RedundancyResult",
    "RelationSimilarity",
    "SimilarPair",
    "apply_map",
    "argument_key",
    "fit",
    "held_out_nll",
    "read_map",
    "read_openie",
    "read_review",
    "redundancy",
    "relation_key",
    "similarity",
    "split_facts",
    "undo_map",
]
