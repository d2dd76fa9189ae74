"""One runner and every benchmark of hyrel: ``run``, ``resume``, ``compare`` and ``load`` do what the command line does."""

from .api import TASKS, Result, compare, load, resume, run

__all__ = ["TASKS", "Result", "compare", "load", "resume", "run"]
