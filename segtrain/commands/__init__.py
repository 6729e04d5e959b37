"""The commands, one file each; every command takes a configuration that is already checked."""
