"""Transforms from samples to tensors: resizing, cropping, augmentation, normalisation."""
