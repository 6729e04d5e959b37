"""Pages: self-contained HTML with tables, charts and pictures."""
