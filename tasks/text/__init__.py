"""Sentence and sentence-pair classification and regression: a transformers or Lorentz backbone below one head."""
