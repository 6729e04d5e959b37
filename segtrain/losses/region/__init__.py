"""Region losses: a formula of a few sums per class."""
