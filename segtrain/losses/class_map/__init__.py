"""Class-map losses: one value per class from the whole map of its probability."""
