"""How similar two relations of a knowledge base are, by KL divergence between their fact distributions.

Files are doors, folders are the rooms behind them, and each line of this list imports from the lines below it only:

- ``evaluation``: what a similarity is measured against;
- ``redundancy``: which phrases mean the same; ``merge`` ranks, clusters, and applies the map;
- ``baselines``: count and text measures; ``evidence`` turns all measures of a pair into one probability;
- ``similarity``, ``divergence``: all pairs of relations; ``kl`` samples, sums, bounds and stops;
- ``distribution``, ``fit``: the fact distribution; ``model`` holds its softmax, batches, starts and mixture;
- ``openie``, ``facts``: input; ``ingest`` stages and groups it, ``readers`` know the formats;
- ``phrases``: keys and tokens of words; ``maths``: functions that know no facts.
"""

from __future__ import annotations

from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.fit import FitReport, fit, held_out_nll, split_facts
from relsim.ingest.report import IngestError, IngestReport
from relsim.kl.result import RelationSimilarity, SimilarPair
from relsim.merge.apply import apply_map, read_map, undo_map
from relsim.merge.result import RedundancyResult
from relsim.merge.review import read_review
from relsim.model.batches import FactBatches
from relsim.model.recommended import fit_distribution
from relsim.openie import read_openie
from relsim.phrases.normalise import argument_key, relation_key
from relsim.redundancy import redundancy
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
    "fit_distribution",
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
