"""Pixel losses: one value per pixel, reduced by a mean or by hard-example mining."""
