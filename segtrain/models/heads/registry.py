"""The registry of heads."""

from __future__ import annotations

from segtrain.models.heads.base import Head
from segtrain.schema.registry import Registry

HEADS: Registry[Head] = Registry("head")
