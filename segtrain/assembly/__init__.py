"""From a checked configuration to a whole run."""
