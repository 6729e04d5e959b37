"""Reading and writing image and mask files, on disk, in archives and on servers."""
