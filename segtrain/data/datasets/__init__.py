"""Where samples come from: folders, lists, COCO files, and shapes drawn on the fly."""
