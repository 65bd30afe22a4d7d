"""`robocache inspect`: what is in a dataset, and what is wrong with it."""

from __future__ import annotations

from .audit import Audit, audit
from .findings import Finding

__all__ = ["Audit", "Finding", "audit"]
