"""Behind ``relsim.distribution`` and ``relsim.fit``: softmax, batches, starting values, entity types, back-off mixture."""
