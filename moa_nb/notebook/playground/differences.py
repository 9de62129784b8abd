"""Two versions of the templates word by word: what they say, what is sent, what comes back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moa_nb.notebook.playground.preview import Preview
from moa_nb.panels.difference import Part, difference, to_words

__all__ = ["Difference", "Pieces", "between"]

_MARK = re.compile(r"\[[0-9a-f]{18}\]")
"""A fence's mark, which is another one around other texts and says nothing."""

Pieces = Sequence[Part]
"""How one text becomes the other: stretches that stay, go and come."""


@dataclass(frozen=True)
class Difference:
    """Two versions side by side: what differs, by what it is called."""

    before: str
    """What the earlier one is called."""
    after: str
    templates: Mapping[str, Pieces]
    prompts: Mapping[str, Pieces]
    """By layer and agent; of what is not asked yet, with placeholders."""
    outputs: Mapping[str, Pieces]
    """By layer and agent, and ``answer``; only where both have been asked."""
    missing: tuple[str, ...] = ()
    """The versions whose answers are not in the store."""

    @property
    def parts(self) -> list[tuple[str, Pieces]]:
        """All that differs, with its heading: templates, prompts, outputs."""
        kinds = (("template", self.templates), ("prompt", self.prompts), ("output", self.outputs))
        return [(f"{kind} · {name}", pieces) for kind, differing in kinds for name, pieces in differing.items()]

    @property
    def remarks(self) -> list[str]:
        """What a reader must know besides."""
        said = [] if self.parts else ["no difference"]
        return said + [f"{label} has not been run on this input: no outputs to compare" for label in self.missing]

    def __str__(self) -> str:
        lines = [f"{self.before} → {self.after}", *self.remarks]
        for heading, pieces in self.parts:
            lines += [f"--- {heading} ---", to_words(pieces)]
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's
        from moa_nb.notebook.playground import static

        return static.of_difference(self)


def between(
    labels: tuple[str, str],
    sources: tuple[Mapping[str, str], Mapping[str, str]],
    previews: tuple[Preview | None, Preview | None],
) -> Difference:
    """Return how two versions differ on one input.

    Args:
        labels: what they are called.
        sources: their templates by file.
        previews: what each would send and has said; ``None`` for one whose templates cannot be rendered.
    """
    templates = _differing(*({file.removesuffix(".jinja"): text for file, text in one.items()} for one in sources))
    prompts = _differing(*map(_prompts, previews))
    missing = tuple(label for label, one in zip(labels, previews, strict=True) if one is None or one.result is None)
    outputs = _differing(*map(_outputs, previews), both=True)
    return Difference(*labels, templates, prompts, outputs, missing)


def _differing(before: Mapping[str, str], after: Mapping[str, str], *, both: bool = False) -> dict[str, Pieces]:
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: difference(before.get(name, ""), after.get(name, ""))
        for name in names
        if before.get(name) != after.get(name) and (not both or (name in before and name in after))
    }


def _prompts(preview: Preview | None) -> dict[str, str]:
    if preview is None:
        return {}
    return {
        f"{layer.name} · {call.agent}": "\n\n".join(
            f"[{turn.role}]\n{_MARK.sub('[mark]', turn.content)}" for turn in call.prompt
        )
        for layer in preview.layers
        for call in layer.calls
    }


def _outputs(preview: Preview | None) -> dict[str, str]:
    if preview is None:
        return {}
    said = {
        f"{layer.name} · {call.agent}": call.text for layer in preview.layers for call in layer.calls if call.cached
    }
    return said if preview.result is None else {**said, "answer": preview.result.text}
