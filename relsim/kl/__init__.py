"""Behind ``relsim.divergence`` and ``relsim.similarity``: samplers, sums, bounds, stopping, and their result."""
