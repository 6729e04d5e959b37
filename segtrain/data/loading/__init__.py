"""From datasets to batches: order, workers, the memory cache."""
