"""The families of losses, as base classes: each decides how its losses run in strips."""
