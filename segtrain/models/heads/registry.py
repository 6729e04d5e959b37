"""The closed set of heads that a config chooses from by name."""

from __future__ import annotations

from segtrain.models.heads.base import Head
from segtrain.schema.registry import Registry

HEADS: Registry[Head] = Registry("head")
