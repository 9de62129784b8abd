"""Dollars as text."""

from __future__ import annotations

__all__ = ["dollars"]

_FOUR_PLACES_DO = 0.00095


def dollars(amount: float) -> str:
    """Return ``amount`` without the sign, precise enough to tell small costs apart.

    >>> dollars(0.01234), dollars(0), dollars(12.3456), dollars(0.00000123)
    ('0.0123', '0', '12.35', '0.0000012')
    """
    if amount == 0:
        return "0"
    if abs(amount) >= 1:
        return f"{amount:,.2f}"
    if abs(amount) >= _FOUR_PLACES_DO:
        return f"{amount:.4f}"
    return f"{float(f'{amount:.2g}'):.10f}".rstrip("0")
