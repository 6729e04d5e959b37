"""The loss gallery: pages from docstrings and pictures from the losses themselves."""
