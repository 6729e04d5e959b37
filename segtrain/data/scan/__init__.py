"""A scan of every file of a split: counts, problems, class weights, mean and std."""
