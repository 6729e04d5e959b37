"""The label contract: how raw mask values become class ids."""
