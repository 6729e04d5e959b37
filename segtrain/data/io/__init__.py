"""Read and write image and mask files on disk, in archives and on servers."""
