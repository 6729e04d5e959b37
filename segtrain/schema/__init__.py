"""Names, types and values of a configuration: sections, checks, registries, plugins."""
