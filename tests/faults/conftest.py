"""Tests that inject a fault for real; ``tests/fault_table.py`` prints their table."""

collect_ignore = ["slow.py", "bad_data.py"]  # plugins, which the plugin loader is to load
