"""How similar two relations of a knowledge base are, by KL divergence between their fact distributions."""

from __future__ import annotations

from relsim.batches import FactBatches
from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.fit import FitReport, fit, held_out_nll, split_facts
from relsim.ingest import IngestError, IngestReport
from relsim.openie import read_openie
from relsim.redundancy import redundancy
from relsim.redundant import RedundancyResult
from relsim.result import RelationSimilarity, SimilarPair
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
    "fit",
    "held_out_nll",
    "read_openie",
    "redundancy",
    "similarity",
    "split_facts",
]
