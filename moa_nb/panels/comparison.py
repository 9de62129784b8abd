"""Several pipelines on one question, side by side: what they say, and what that takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from moa_nb.panels import difference, provenance
from moa_nb.panels.colours import RED, tinted
from moa_nb.panels.figures import UNKNOWN, count, dollars, seconds, share, tokens
from moa_nb.panels.markdown import inline_markdown, to_html, to_markdown
from moa_nb.panels.room import brief, cut
from moa_nb.panels.tables import TableDisplay, table
from moa_nb.panels.templates import macros
from moa_nb.pipeline.result import Result
from moa_nb.pipeline.similarity import similarity_of_all
from moa_nb.plain import to_plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "cost_alone"]

MAX_CHARACTERS = 60_000
"""Of all answers that are shown; the longest are cut, and say so."""

_NOTE = 600


class Comparison(dict[str, Result]):
    """The results of several pipelines on one question, by pipeline; it shows itself side by side.

    Each pipeline's dollars are what it takes when it runs alone: a call that several of them share counts for each.

    Args:
        results: by pipeline, in the order in which they were named.
        points: what a judge gives each, 0 to 1; empty where nobody judged, ``None`` where nothing could be read.
        judged: the judge's own run.
    """

    def __init__(
        self,
        results: Mapping[str, Result],
        points: Mapping[str, float | None] | None = None,
        judged: Result | None = None,
    ) -> None:
        super().__init__(results)
        self.points = dict(points or {})
        self.judged = judged

    @property
    def agreement(self) -> float | None:
        """How alike the answers of the pipelines are, 0 to 1; ``None`` where fewer than two have one."""
        texts = [result.text for result in self.values() if result.error is None]
        return similarity_of_all(texts) if len(texts) > 1 else None

    @property
    def cost(self) -> float | None:
        """Dollars paid for all of it, the judge included; ``None`` where a price is not known."""
        costs = [result.cost for result in self._runs]
        return None if None in costs else float(sum(cost for cost in costs if cost is not None))

    @property
    def _runs(self) -> list[Result]:
        return [*self.values(), *([self.judged] if self.judged is not None else [])]

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each pipeline: its answer, calls, tokens, dollars, seconds, agreement, points."""
        import pandas as pd

        rows = [
            {
                "pipeline": name,
                "text": result.text if result.error is None else None,
                "calls": result.n_calls,
                "prompt_tokens": result.usage.prompt_tokens,
                "completion_tokens": result.usage.completion_tokens,
                "cost": cost_alone(result),
                "seconds": result.seconds,
                "agreement": result.agreement,
                "points": self.points.get(name),
                "error": result.error,
            }
            for name, result in self.items()
        ]
        frame = pd.DataFrame(rows).set_index("pipeline")
        whole = dict.fromkeys(("prompt_tokens", "completion_tokens"), "Int64")
        return frame.astype({**whole, **dict.fromkeys(("cost", "agreement", "points"), "Float64")})

    # Showing ----------------------------------------------------------------------------------

    def bundle(self) -> dict[str, Any]:
        """Return the comparison by media type: HTML, Markdown, plain text, and the runs' provenance as JSON."""
        return {
            "text/html": self._html(),
            "text/markdown": self._markdown(),
            "text/plain": self._plain(),
            provenance.MIME_TYPE: provenance.records(self._runs),
        }

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's
        return self.bundle()

    @property
    def _caption(self) -> str:
        paid = "at an unknown price" if self.cost is None else f"for ${dollars(self.cost)}"
        alike = "" if self.agreement is None else f", whose answers are {share(self.agreement)} alike"
        judge = (
            "" if self.judged is None or not self.judged.calls else f", judged by {brief(self.judged.calls[0].model)}"
        )
        return f"{count(len(self), 'pipeline')} {paid}{alike}{judge}"

    @property
    def _notes(self) -> list[str]:
        said = [(brief(name), note) for name, result in self.items() for note in result.notes]
        notes = [f"{who}: {cut(note, _NOTE)}" for who, note in [*said, *(("judge", note) for note in self._of_judge)]]
        if any(call.cached for result in self.values() for call in result.calls):
            notes.append("seconds are those of the calls that were asked now; cached ones take none")
        return notes

    @property
    def _of_judge(self) -> Iterable[str]:
        """What is to be said of the judge: why there are no points, or not all."""
        if self.judged is None:
            return
        if self.judged.error is not None:
            yield self.judged.error
        if self.judged.n_unparsed:
            n_verdicts = count(sum(call.ok for call in self.judged.calls), "verdict")
            yield f"{self.judged.n_unparsed:,} of {n_verdicts} could not be read, and count for nobody"
        yield from self.judged.notes

    def _figures(self) -> TableDisplay:
        headers = ["pipeline", "calls", "cached", "tokens in", "tokens out", "$", "s", "agreement"]
        rows = [
            [
                brief(name),
                result.n_calls,
                sum(call.cached for call in result.calls),
                tokens(result.usage.prompt_tokens, estimated=result.usage.estimated),
                tokens(result.usage.completion_tokens, estimated=result.usage.estimated),
                dollars(cost_alone(result)),
                seconds(result.seconds),
                share(result.agreement),
                *([_points(self.points[name])] if name in self.points else []),
            ]
            for name, result in self.items()
        ]
        return table(rows, [*headers, *(["judge's points"] if self.points else [])])

    def _named(self) -> Iterable[tuple[str, Result]]:
        return ((brief(name), result) for name, result in self.items())

    @property
    def _limit(self) -> int:
        return MAX_CHARACTERS // max(1, len(self))

    def _differences(self) -> Iterable[tuple[str, Result, str, list[difference.Part]]]:
        """Yield each result with a heading, and how the first answer becomes its own; nothing for the first."""
        first: tuple[str, str] | None = None
        for name, result in self._named():
            text = result.text[: self._limit]
            if result.error is not None:
                yield name, result, "", []
            elif first is None:
                first = name, text
                yield name, result, "", []
            elif text == first[1]:
                yield name, result, f"word for word the answer of {first[0]}", []
            else:
                yield name, result, f"what {name} says otherwise than {first[0]}", difference.difference(first[1], text)

    def _html(self) -> str:
        columns = [
            {
                "name": name,
                "error": cut(result.error or "", 4 * _NOTE),
                "answer": "" if result.error else to_html(result.text, limit=self._limit),
                "heading": to_plain(heading),
                "difference": difference.to_html(parts),
            }
            for name, result, heading, parts in self._differences()
        ]
        notes = [to_plain(note) for note in self._notes]
        figures = self._figures()._repr_html_()
        return str(macros("comparison").comparison(to_plain(self._caption), figures, columns, notes, tinted(RED)))

    def _markdown(self) -> str:
        parts = [inline_markdown(self._caption), self._figures()._repr_markdown_()]
        parts += [f"*{inline_markdown(note)}*" for note in self._notes]
        for name, result, heading, changes in self._differences():
            parts.append(f"#### {inline_markdown(name)}")
            parts.append(
                f"**No answer.** {inline_markdown(cut(result.error, 4 * _NOTE))}"
                if result.error
                else to_markdown(result.text, limit=self._limit)
            )
            if heading:
                parts.append(f"*{inline_markdown(heading)}*" + (":" if changes else ""))
            if changes:
                parts.append(difference.to_markdown(changes))
        return "\n\n".join(parts) + "\n"

    def _plain(self) -> str:
        parts = [f"{to_plain(self._caption)}\n{self._figures()!r}", *(to_plain(note) for note in self._notes)]
        for name, result, heading, _ in self._differences():
            said = f"No answer. {cut(result.error, 4 * _NOTE)}" if result.error else result.text[: self._limit]
            if heading.startswith("word for word"):
                said = heading
            parts.append(f"--- {to_plain(name)} ---\n{to_plain(said)}")
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return self._plain()


def cost_alone(result: Result) -> float | None:
    """Return the dollars of a run if nothing had been in the cache; ``None`` where a price is not known."""
    if result.cost is None or result.saved is None:
        return None
    return result.cost + result.saved


def _points(points: float | None) -> str:
    return UNKNOWN if points is None else f"{points:.2f}"
