"""How similar two relations of a knowledge base are, by KL divergence between their fact distributions."""

from __future__ import annotations

from relsim.facts import Facts
from relsim.ingest import IngestError, IngestReport
from relsim.openie import read_openie

__all__ = ["Facts", "IngestError", "IngestReport", "read_openie"]
