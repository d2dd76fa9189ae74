"""Relation similarity: a fact distribution trained through the runner, judged on a suite with a known answer."""
