"""Knowledge-graph completion: scorers, negatives, filtered ranking, and the task that ties them to the runner."""
