"""How similar two relations of a knowledge base are, by KL divergence between their fact distributions."""

from __future__ import annotations

from relsim.facts import Facts
from relsim.ingest import IngestError, IngestReport
from relsim.openie import read_openie
from relsim.redundancy import redundancy
from relsim.redundant import RedundancyResult

__all__ = ["Facts", "IngestError", "IngestReport", "RedundancyResult", "read_openie", "redundancy"]
