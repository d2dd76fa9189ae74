"""Behind ``relsim.baselines`` and ``relsim.redundancy``: measures of a pair of relations, and the probability they give."""
