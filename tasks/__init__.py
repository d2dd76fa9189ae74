"""One runner and every benchmark of hyrel: ``run``, ``resume`` and ``compare`` do what the command line does."""

from .api import TASKS, Result, compare, resume, run

__all__ = ["TASKS", "Result", "compare", "resume", "run"]
