"""Behind ``relsim.redundancy``: from judged pairs to ranked tables, clusters, and a map applied to new extractions."""
