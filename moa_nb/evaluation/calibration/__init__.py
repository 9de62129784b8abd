"""Thresholds of routes and cascades, chosen by replay over what was logged. No call is made."""

from __future__ import annotations
