"""One look at every file of a split, and what is counted on the way."""
