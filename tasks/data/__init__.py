"""Data sets: their registry, where they lie, and how they become tensors. ``tasks.data.load`` holds the loader."""

from .sets import DATA, DataSet

__all__ = ["DATA", "DataSet"]
