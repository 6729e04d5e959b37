"""The base classes of losses; the family decides how a loss is computed in strips."""
