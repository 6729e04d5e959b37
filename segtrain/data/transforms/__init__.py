"""From a sample to tensors: resizing, cropping, augmentation, normalisation."""
