"""What the commands do once their configuration is checked, one file per command."""
