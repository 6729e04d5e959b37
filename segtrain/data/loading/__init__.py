"""From datasets to batches: order, random seeds, workers, the memory cache."""
