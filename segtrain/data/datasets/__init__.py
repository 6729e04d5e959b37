"""Datasets of folders, list files and COCO files, and a synthetic one of drawn shapes."""
