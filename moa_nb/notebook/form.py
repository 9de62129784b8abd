"""A finished run as a live form: its panel, buttons that copy and ask again, and below what came of that."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from moa_nb import settings
from moa_nb.engine import Engine, Plan, current
from moa_nb.engine.loop import Job
from moa_nb.errors import MoaError
from moa_nb.notebook.controls import Controls, Part
from moa_nb.notebook.rerun import from_layer, places, run_again, with_model
from moa_nb.panels import figures, provenance
from moa_nb.panels.bundle import bundle
from moa_nb.panels.comparison import cost_alone
from moa_nb.panels.difference import difference, to_html, to_markdown, to_words
from moa_nb.panels.markdown import inline_markdown
from moa_nb.panels.room import brief
from moa_nb.panels.templates import one_block
from moa_nb.panels.text import markdown as panel_markdown
from moa_nb.panels.view import view_of
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.plain import to_plain

__all__ = ["LiveForm", "Rerun", "live_form"]

_MOST_SHOWN = 3
"""Further runs that stand below the first; earlier ones are in ``moa.runs()``."""
_SAY_SECONDS = 0.25
_DIFFERING = (
    "white-space:pre-wrap;overflow-wrap:break-word;word-break:normal;margin:.3em 0;padding:.45em .7em;"
    "background:#88888818"
)


@dataclass(frozen=True)
class Rerun:
    """A run that a button began."""

    what: str
    """What was done differently."""
    result: Result


class LiveForm:
    """Shows a finished run, and runs it again when it is asked to.

    Args:
        result: the run.
        plan: how it was run; ``None`` where nobody knows, and it can only be copied.
        task: its input; likewise.
    """

    def __init__(self, result: Result, plan: Plan | None = None, task: Task | None = None) -> None:
        self.result, self._plan, self._task = result, plan, task
        self.reruns: list[Rerun] = []
        """What the buttons brought, in order."""
        self._lock = threading.Lock()
        self._job: Job[None] | None = None
        self._record: RunRecord | None = None
        self._controls = Controls(self._parts(), self.press)
        self._controls.widget.texts = {
            "answer": to_plain(result.text),
            "markdown": panel_markdown(view_of(result)),
        }

    def show(self) -> None:
        """Return nothing; show the panel and its buttons below the current cell."""
        self._controls.show(self.bundle())

    @property
    def busy(self) -> bool:
        """Whether a run that a button began goes on."""
        with self._lock:
            return self._job is not None and not self._job.done

    def _parts(self) -> list[Part]:
        parts: list[Part] = [
            {"kind": "copy", "label": "Copy answer", "field": "answer", "hint": "the answer as text"},
            {
                "kind": "copy",
                "label": "Copy as Markdown",
                "field": "markdown",
                "hint": "the answer, its layers and costs",
            },
        ]
        if self._plan is None or self._task is None:
            return parts
        if self.result.layers:
            layers = [(str(number), layer.name) for number, layer in enumerate(self.result.layers)]
            parts += [
                {"kind": "choice", "name": "layer", "label": "from", "options": layers},
                {
                    "kind": "button",
                    "do": "layer",
                    "label": "Re-run",
                    "hint": "earlier layers from the store, the rest asked anew",
                },
                {"kind": "choice", "name": "place", "label": "instead of", "options": places(self._plan, self.result)},
                {
                    "kind": "text",
                    "name": "model",
                    "label": "ask",
                    "hint": "provider:model",
                    "options": _known_models(self._plan),
                },
                {
                    "kind": "button",
                    "do": "model",
                    "label": "Re-run with it",
                    "hint": "everybody else answers from the store",
                },
            ]
        parts.append(
            {"kind": "button", "do": "stop", "label": "Stop", "hint": "what is answered stays", "when": "busy"}
        )
        return parts

    # What the browser says: on any thread -----------------------------------------------------

    def press(self, do: str, values: dict[str, Any]) -> None:
        """Return at once; begin or stop what a button says.

        Args:
            do: ``layer``, ``model`` or ``stop``.
            values: of the fields: ``layer`` (its number, from 0), ``place`` and ``model``.
        """
        with self._lock:
            is_busy = self._job is not None and not self._job.done
            if do == "stop":
                if is_busy and self._job is not None:
                    self._job.cancel()
            elif do in {"layer", "model"} and not is_busy and self._plan is not None and self._task is not None:
                engine = current()
                self._record = None
                self._job = engine.start(self._again(engine, self._plan, self._task, do, values))

    # On the engine's loop ---------------------------------------------------------------------

    async def _again(self, engine: Engine, plan: Plan, task: Task, do: str, values: dict[str, Any]) -> None:
        self._controls.say("asking again …", busy=True)
        saying = asyncio.create_task(self._saying())
        what, said, result = "", "", None
        try:
            what, changed = _changed(replace(plan, gateway=engine.gateway(plan.settings)), self.result, do, values)
            result = await run_again(engine, changed, task, self._begun)
        except MoaError as error:
            result, said = self._cut_short(), str(error)
        except asyncio.CancelledError:
            result, said = self._cut_short(), "stopped; what was answered is kept"
            raise
        except Exception as error:
            result, said = self._cut_short(), f"{type(error).__name__}: {error}"
        finally:
            saying.cancel()
            if result is not None:
                self.reruns.append(Rerun(what, result))
                self._controls.update(self.bundle())
            self._controls.say(said)

    def _begun(self, record: RunRecord) -> None:
        self._record = record

    def _cut_short(self) -> Result | None:
        return None if self._record is None else self._record.result

    async def _saying(self) -> None:
        """Say how far the run is, until it is over."""
        while True:
            record = self._record
            if record is not None:
                calls = [call for layer in record.layers for call in layer.calls]
                n_over = sum(call.call is not None for call in calls)
                self._controls.say(
                    f"asking again: {n_over} of {len(calls)} answered, {record.seconds():.1f} s", busy=True
                )
            await asyncio.sleep(_SAY_SECONDS)

    # What is shown ----------------------------------------------------------------------------

    def bundle(self) -> dict[str, Any]:
        """Return the run and those that followed by media type: each below the other, with what differs."""
        shown = bundle(self.result)
        shown["text/html"] += self._controls.place
        if not self.reruns:
            return shown
        left_out = len(self.reruns) - _MOST_SHOWN
        below = [_below(self.result, rerun) for rerun in self.reruns[-_MOST_SHOWN:]]
        if left_out > 0:
            said = f"{figures.count(left_out, 'earlier re-run')} in moa.runs()"
            below.insert(0, {"text/html": f"<div>{said}</div>", "text/markdown": said, "text/plain": said})
        for kind, between in (("text/html", ""), ("text/markdown", "\n\n"), ("text/plain", "\n\n")):
            shown[kind] = between.join([shown[kind], *(one[kind] for one in below)])
        shown[provenance.MIME_TYPE] = {
            **shown[provenance.MIME_TYPE],
            "reruns": [provenance.record(rerun.result) for rerun in self.reruns[-_MOST_SHOWN:]],
        }
        return shown


def live_form(result: Result) -> LiveForm:
    """Return the form of a run; one of this session can be run again."""
    asked = current().asked.get(result.run_id)
    return LiveForm(result) if asked is None else LiveForm(result, *asked)


def _changed(plan: Plan, result: Result, do: str, values: dict[str, Any]) -> tuple[str, Plan]:
    """Return what is done differently, in words, and the plan for it.

    Raises:
        SetupError: it cannot be done.
    """
    if do == "layer":
        text = str(values.get("layer", "0"))
        number = min(int(text) if text.isdecimal() else 0, len(result.layers) - 1)
        return f"from {result.layers[number].name}", from_layer(plan, number)
    place, model = str(values.get("place", "")), str(values.get("model", ""))
    names = dict(places(plan, result))
    return f"{model.strip()} instead of {names.get(place, place)}", with_model(plan, place, model)


def _known_models(plan: Plan) -> list[str]:
    configured = settings.current()
    named = [
        *plan.models,
        *configured.proposers,
        configured.aggregator,
        configured.strong,
        configured.small,
        *configured.models,
    ]
    return [model for model in dict.fromkeys(named) if model]


def _below(first: Result, rerun: Rerun) -> dict[str, Any]:
    """Return a further run by media type: what differs from the first, and its panel."""
    result, panel = rerun.result, bundle(rerun.result)
    title = f"{brief(rerun.what)}: {_figures(first, result)}"
    differs = difference(first.text, result.text) if result.error is None else []
    if result.error is None and first.text == result.text:
        title += "; the same answer"
        differs = []
    pre = f'<pre style="{_DIFFERING}">{to_html(differs)}</pre>' if differs else ""
    # Both classes tell MathJax to keep off: what stands between two dollar signs is no mathematics.
    head = (
        '<div class="tex2jax_ignore mathjax_ignore" style="margin:.7em 0 .3em;overflow-wrap:break-word">'
        f"<b>{escape(title)}</b>{pre}</div>"
    )
    words = f"\n{to_words(differs)}" if differs else ""
    marked = f"\n\n{to_markdown(differs)}" if differs else ""
    return {
        "text/html": one_block(head) + panel["text/html"],
        "text/markdown": f"{inline_markdown(title)}{marked}\n\n{panel['text/markdown']}",
        "text/plain": f"{title}{words}\n\n{panel['text/plain']}",
    }


def _figures(first: Result, result: Result) -> str:
    def cost(one: Result) -> str:
        # What the store answered costs nothing now; which of two is dearer must not hang on that.
        alone = cost_alone(one)
        return "unknown cost" if alone is None else f"${figures.dollars(alone)}"

    cached = sum(call.cached for call in result.calls)
    calls = f"{figures.count(result.n_calls, 'call')}, {cached} cached"
    if cached and result.cost is not None:
        calls += f": ${figures.dollars(result.cost)} paid now"
    return f"{cost(first)} → {cost(result)}, {first.seconds:.1f} s → {result.seconds:.1f} s, {calls}"
