"""Data inside the package: real facts, the Open-IE extractions made from them, and a small taxonomy.

Everything here is made from tables of well-known facts (``*.tsv``), needs no network and no file but the package's own.
"""

from __future__ import annotations

from tasks.data.embedded.openie import Extraction, PlantedTruth, extractions, truth, write_extractions
from tasks.data.embedded.taxonomy import common_names, depths, taxonomy

__all__ = [
    "Extraction",
    "PlantedTruth",
    "common_names",
    "depths",
    "extractions",
    "taxonomy",
    "truth",
    "write_extractions",
]
