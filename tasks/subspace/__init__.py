"""The unified optimisation subspace of delta methods, from trained solutions to tables."""
