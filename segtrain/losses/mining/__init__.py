"""Hard-example mining: which pixels a pixel loss averages, and with which weights."""
