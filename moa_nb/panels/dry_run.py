"""What a run would send: its prompts, calls, tokens and dollars."""

from __future__ import annotations

from typing import Any

from moa_nb.engine.forecast import Estimate
from moa_nb.panels.figures import dollars, span, tokens
from moa_nb.panels.room import cut
from moa_nb.panels.templates import template
from moa_nb.plain import to_plain

__all__ = ["bundle"]

_PROMPT = 20_000
"""Characters of a message that are shown."""


def bundle(estimate: Estimate) -> dict[str, Any]:
    """Return the estimate by media type: HTML and plain text."""
    return {"text/html": _html(estimate), "text/plain": _plain(estimate)}


def _html(estimate: Estimate) -> str:
    layers = estimate.result.layers if estimate.result else ()
    html: str = template("dry_run").render(
        headline=to_plain(str(estimate)),
        figures=_figures(estimate),
        layers=[
            {
                "name": layer.name,
                "calls": [
                    {
                        "agent": to_plain(call.agent),
                        "model": to_plain(call.model),
                        "tokens": f"≈{call.usage.prompt_tokens:,} → {call.usage.completion_tokens:,}",
                        "cost": _cost(call.cost),
                        "cached": call.cached,
                        "prompt": [{"role": turn.role, "text": cut(turn.content, _PROMPT)} for turn in call.prompt],
                    }
                    for call in layer.calls
                ],
            }
            for layer in layers
        ],
    )
    return html


def _cost(amount: float | None) -> str:
    if amount is None:
        return "unknown cost"
    return f"${dollars(amount)}" if amount else "free"


def _figures(estimate: Estimate) -> str:
    """Return the least and the most of each figure, on one line; empty where they differ in nothing but tokens."""
    low, high = estimate.low, estimate.high
    if low.n_calls == high.n_calls:
        return ""
    least, most = (
        {
            "calls": f"{one.n_calls:,}",
            "layers": f"{one.n_layers:,}",
            "tokens in": tokens(one.prompt_tokens, estimated=True),
            "out": tokens(one.completion_tokens),
            "dollars": dollars(one.cost),
        }
        for one in (low, high)
    )
    more = ", or more" if estimate.at_least else ""
    return ", ".join(f"{span(least[name], most[name])} {name}" for name in most) + more


def _plain(estimate: Estimate) -> str:
    lines = [f"dry run, nothing was sent: {to_plain(str(estimate))}"]
    if figures := _figures(estimate):
        lines.append(f"at least and at most: {figures}")
    for layer in estimate.result.layers if estimate.result else ():
        for call in layer.calls:
            lines.append(f"\n--- {layer.name}, {call.agent} ({call.model}) ---")
            lines.extend(f"[{turn.role}] {cut(turn.content, _PROMPT)}" for turn in call.prompt)
    return "\n".join(lines)
