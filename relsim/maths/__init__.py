"""Pure functions that know no facts: rows of sparse matrices, exponential families, confidence intervals."""
