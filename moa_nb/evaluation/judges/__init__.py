"""Judges judged: places, lengths, their own answers, agreement with each other and with people. No call is made."""

from __future__ import annotations
