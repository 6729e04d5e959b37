"""Shards: tar files of samples, on disk or on servers."""
