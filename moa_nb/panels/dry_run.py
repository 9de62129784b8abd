"""What a run would send: its prompts, calls, tokens and dollars."""

from __future__ import annotations

from typing import Any

from moa_nb.engine.forecast import Estimate
from moa_nb.panels.markdown import to_plain

__all__ = ["bundle"]


def bundle(estimate: Estimate) -> dict[str, Any]:
    """Return the estimate by media type: HTML and plain text."""
    return {"text/html": _html(estimate), "text/plain": _plain(estimate)}


def _html(estimate: Estimate) -> str:
    from moa_nb.templating import panel_environment

    layers = estimate.result.layers if estimate.result else ()
    return (
        panel_environment()
        .get_template("panels/dry_run.html.jinja")
        .render(
            headline=str(estimate),
            layers=[
                {
                    "name": layer.name,
                    "calls": [
                        {
                            "agent": to_plain(call.agent),
                            "model": to_plain(call.model),
                            "tokens": f"≈{call.usage.prompt_tokens:,} → {call.usage.completion_tokens:,}",
                            "cost": "unknown cost" if call.cost is None else f"${call.cost:.4f}",
                            "cached": call.cached,
                            "prompt": [{"role": turn.role, "text": to_plain(turn.content)} for turn in call.prompt],
                        }
                        for call in layer.calls
                    ],
                }
                for layer in layers
            ],
        )
    )


def _plain(estimate: Estimate) -> str:
    lines = [f"dry run, nothing was sent: {estimate}"]
    for layer in estimate.result.layers if estimate.result else ():
        for call in layer.calls:
            lines.append(f"\n--- {layer.name}, {call.agent} ({call.model}) ---")
            lines.extend(f"[{turn.role}] {to_plain(turn.content)}" for turn in call.prompt)
    return "\n".join(lines)
