"""Where an answer comes from, as data that is saved beside it.

The record says which models were asked, with which parameters and templates, what they answered and
what that took. It holds no keys, and of prompts only digests: a template's digest and the
conversation are enough to ask again. From the record comes a result again, as far as it goes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moa_nb.chat import Message, Usage
from moa_nb.errors import SetupError

if TYPE_CHECKING:
    from moa_nb.panels.frame_report.view import ReportView
    from moa_nb.pipeline.result import Call, Result

__all__ = [
    "MAX_CHARACTERS",
    "MIME_TYPE",
    "SavedFrameRun",
    "SavedRuns",
    "frame_records",
    "from_notebook",
    "is_secret",
    "outputs_in",
    "record",
    "records",
    "result_of",
]

MIME_TYPE = "application/vnd.moa.run+json"

MAX_CHARACTERS = 200_000
"""How much text a record may hold; beyond it the longest answers are cut, and marked so."""

_VERSION = 1

_SECRET = re.compile(r"api.?key|authorization|bearer|credential|passw|secret|(?:^|_)token$|x-.*-key", re.IGNORECASE)


def record(result: Result, *, max_characters: int = MAX_CHARACTERS) -> dict[str, Any]:
    """Return the provenance of ``result`` as plain JSON values."""
    cap = _cap([len(result.text), *(len(call.text) for call in result.calls)], max_characters)
    return {
        "version": _VERSION,
        "run_id": _clean(result.run_id),
        "pipeline": _clean(result.pipeline),
        "conversation": [_turn(message) for message in result.conversation],
        **_answer(result.text, cap),
        **_value(result.value, cap),
        "error": _clean_or_none(result.error),
        "layers": [
            {"name": _clean(layer.name), "aside": layer.aside, "calls": [_call(call, cap) for call in layer.calls]}
            for layer in result.layers
        ],
        "totals": {
            "calls": result.n_calls,
            "cached": sum(call.cached for call in result.calls),
            "failed": sum(not call.ok for call in result.calls),
            "usage": _usage(result.usage),
            "cost": _plain(result.cost),
            "budget": _plain(result.budget),
            "seconds": _plain(result.seconds),
        },
        "flags": {
            "degraded": result.degraded,
            "converged": result.converged,
            "accepted": result.accepted,
            "agreement": _plain(result.agreement),
            "stop_reason": _clean(result.stop_reason),
            "n_unparsed": result.n_unparsed,
        },
        "notes": [_clean(note) for note in result.notes],
        "chat": _plain(result.chat),
    }


def records(results: Sequence[Result]) -> dict[str, Any]:
    """Return the provenance of runs that are shown together; their texts share the room of one."""
    room = MAX_CHARACTERS // max(1, len(results))
    return {"version": _VERSION, "runs": [record(result, max_characters=room) for result in results]}


def frame_records(views: Iterable[ReportView]) -> dict[str, Any]:
    """Return what a notebook keeps of runs over rows: what was asked of whom and what it took; rows are in the store."""
    return {"version": _VERSION, "frame_runs": [_frame_run(view) for view in views]}


def _frame_run(view: ReportView) -> dict[str, Any]:
    return {
        "run_id": _clean(view.run_id),
        "verb": _clean(view.verb),
        "column": _clean(view.column),
        "pipeline": _clean(view.pipeline),
        "models": [
            {"layer": _clean(one.layer), "model": _clean(one.model), "calls": one.calls, "cost": _plain(one.cost)}
            for one in view.models
        ],
        "state": view.state,
        "rows": view.rows,
        "states": dict(view.states),
        "calls": view.calls,
        "cached": view.cached,
        "cost": _plain(view.cost),
        "seconds": _plain(view.seconds),
    }


def is_secret(name: str) -> bool:
    """Return whether a parameter of this name may hold a key, so that its value is not to be shown.

    >>> is_secret("api_key"), is_secret("max_tokens")
    (True, False)
    """
    return _SECRET.search(name) is not None


def _call(call: Call, cap: int) -> dict[str, Any]:
    return {
        "agent": _clean(call.agent),
        "model": _clean(call.model),
        "answered_by": _clean(call.answered_by),
        "parameters": {_clean(name): "…" if is_secret(name) else _plain(value) for name, value in call.parameters},
        "template": _clean_or_none(call.template),
        "template_digest": _clean_or_none(call.template_digest),
        "prompt_digest": _digest((message.role, message.content) for message in call.prompt) if call.prompt else None,
        "n_messages": len(call.prompt),
        **_answer(call.text, cap),
        **_value(call.value, cap),
        "finish_reason": _clean_or_none(call.finish_reason),
        "note": _clean_or_none(call.note),
        "usage": _usage(call.usage),
        "cost": _plain(call.cost),
        "saved": _plain(call.saved),
        "started": _plain(call.started),
        "queued_seconds": _plain(call.queued_seconds),
        "first_token_seconds": _plain(call.first_token_seconds),
        "seconds": _plain(call.seconds),
        "attempts": call.attempts,
        "unreported": call.unreported,
        "repeats": call.repeats,
        "cached": call.cached,
        "error": _clean_or_none(call.error),
        "error_kind": _clean_or_none(call.error_kind),
    }


def _answer(text: str, cap: int) -> dict[str, Any]:
    """Return a text with its length; ``is_cut`` stands there only for one that did not fit."""
    said: dict[str, Any] = {"text": _clean(text[:cap]), "n_characters": len(text)}
    return said | {"is_cut": True} if len(text) > cap else said


def _value(value: Any, cap: int) -> dict[str, Any]:
    """Return what was read from a text; one that is longer than texts may be is left out, and ``value_is_cut`` says so."""
    plain = _plain(value)
    if isinstance(plain, str | list | dict) and len(json.dumps(plain, ensure_ascii=False)) > max(cap, 200):
        return {"value": None, "value_is_cut": True}
    return {"value": plain}


def _cap(lengths: list[int], room: int) -> int:
    """Return the length at which to cut the longest texts, so that all take at most ``room``."""
    for place, length in enumerate(sorted(lengths)):
        n_left = len(lengths) - place
        if length * n_left > room:
            return room // n_left
        room -= length
    return max(lengths)


def _turn(message: Message) -> dict[str, Any]:
    """Return a turn of the conversation; of a system message, which may hold secrets, its digest."""
    if message.role == "system":
        digest = _digest([(message.role, message.content)])
        return {"role": "system", "digest": digest, "n_characters": len(message.content)}
    return {"role": message.role, "content": _clean(message.content)}


def _digest(turns: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for role, content in turns:
        # The lengths keep two different lists of turns from running together into one text.
        digest.update(f"{role}:{len(content)}:{content}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_prompt_tokens": usage.cached_prompt_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "estimated": usage.estimated,
    }


_LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")


def _clean(text: str) -> str:
    # A notebook is a UTF-8 file: it could not be saved with half a character in it.
    return _LONE_SURROGATES.sub("\ufffd", text)


def _clean_or_none(text: str | None) -> str | None:
    return None if text is None else _clean(text)


def _plain(value: Any) -> Any:
    """Return ``value`` in JSON's terms; what JSON does not know, as its text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, dict):
        return {_clean(str(name)): "…" if is_secret(str(name)) else _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    return _clean(str(value))[:2000]


# Back again --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SavedFrameRun:
    """A run over the rows of a frame as a notebook's file has it; ``moa.recall(run_id)`` opens it where its store is."""

    run_id: str
    """Its name in ``moa.runs()``."""
    verb: str
    column: str
    """What was asked about; empty for a template."""
    pipeline: str
    models: tuple[Mapping[str, Any], ...]
    """For each layer and model: ``layer``, ``model``, ``calls``, and ``cost`` in dollars."""
    state: str
    rows: int
    states: Mapping[str, int]
    """Rows in each state."""
    calls: int
    cached: int
    """Of the calls: those that the store answered."""
    cost: float | None
    """Dollars; ``None`` where a price is not known."""
    seconds: float


class SavedRuns(list["Result"]):
    """The runs of a notebook, in order; ``frame_runs`` has those over rows."""

    frame_runs: tuple[SavedFrameRun, ...] = ()

    def __repr__(self) -> str:
        rows = "".join(f"\nover rows: moa.recall({run.run_id!r})" for run in self.frame_runs)
        return super().__repr__() + rows


def from_notebook(path: str | Path) -> SavedRuns:
    """Return the runs that a saved notebook holds, in the order of its cells: what its outputs show carries them.

    Runs over rows are in ``frame_runs``, by their id and figures: their rows are in the store, but for those that were
    shown by themselves, as a preview's are. What a record leaves out is not there again: the prompts of the calls,
    system messages, what models thought aloud. Whatever was cut when it was saved is named in the result's ``notes``.
    A run that is shown twice comes once.

    Args:
        path: an ``.ipynb`` file.

    Raises:
        SetupError: the file cannot be read, or is no notebook.

    >>> from_notebook("no_such.ipynb")
    Traceback (most recent call last):
    moa_nb.errors.SetupError: no_such.ipynb cannot be read: No such file or directory
    """
    outputs = outputs_in(path)
    runs: dict[object, Result] = {}
    frames: dict[str, SavedFrameRun] = {}
    try:
        for place, saved in enumerate(run for output in outputs for run in _saved(output)):
            runs.setdefault(_identity(saved) or place, result_of(saved))
        for saved in (run for output in outputs for run in _saved_frames(output)):
            run = SavedFrameRun(**{**saved, "models": tuple(saved["models"])})
            frames[run.run_id] = run  # the last time it was shown it was furthest
    except (KeyError, TypeError, ValueError, AttributeError):
        msg = f"{path} holds a run that cannot be read: it was written by another version, or by hand"
        raise SetupError(msg) from None
    found = SavedRuns(runs.values())
    found.frame_runs = tuple(frames.values())
    return found


def outputs_in(path: str | Path) -> list[Mapping[str, Any]]:
    """Return the outputs that a saved notebook holds, in the order of its cells.

    Raises:
        SetupError: the file cannot be read, or is no notebook.
    """
    try:
        notebook = json.loads(Path(path).read_text("utf-8"))
        cells = notebook["cells"]
        return [output for cell in cells for output in cell.get("outputs", ())]
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise SetupError(msg) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        msg = f"{path} is no notebook of the format 4, which JupyterLab and VS Code save"
        raise SetupError(msg) from None


def _identity(saved: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what tells a run from all others; ``None`` where it has no name. The rows of a frame share their run's."""
    return (saved["run_id"], json.dumps(saved.get("conversation"))) if saved.get("run_id") else None


def _saved_frames(output: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the records of runs over rows in one output."""
    saved = output.get("data", {}).get(MIME_TYPE)
    return saved.get("frame_runs", ()) if isinstance(saved, dict) else ()


def _saved(output: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the records of one output: none, one, those of pipelines side by side, or one and what was asked once more."""
    saved = output.get("data", {}).get(MIME_TYPE)
    for run in (*saved.get("runs", [saved]), *saved.get("reruns", ())) if isinstance(saved, dict) else ():
        if isinstance(run, dict) and {"pipeline", "layers", "text"} <= run.keys():
            yield run


def result_of(record: Mapping[str, Any]) -> Result:
    """Return the run that ``record`` made plain data of, as far as it goes; ``notes`` say what was cut.

    >>> from moa_nb.pipeline.result import Call, Layer, Result
    >>> run = Result("Yes.", "single", (Layer("layer 1", (Call("alpha", "lab:alpha", text="Yes.", cost=0.01),)),))
    >>> result_of(record(run)).calls[0].cost
    0.01
    """
    from moa_nb.pipeline.result import Layer, Result

    layers = tuple(
        Layer(layer["name"], tuple(_call_of(call) for call in layer["calls"]), layer.get("aside", False))
        for layer in record["layers"]
    )
    totals, flags = record.get("totals", {}), record.get("flags", {})
    return Result(
        record["text"],
        record["pipeline"],
        layers,
        record.get("value"),
        totals.get("seconds") or 0.0,
        notes=(*record.get("notes", ()), *_missing(record)),
        run_id=record.get("run_id", ""),
        # Of a system message there is a digest alone.
        conversation=tuple(
            Message(turn["role"], turn["content"]) for turn in record.get("conversation", ()) if "content" in turn
        ),
        error=record.get("error"),
        budget=totals.get("budget"),
        chat=record.get("chat"),
        **{name: flags[name] for name in _FLAGS if flags.get(name) is not None},
    )


_FLAGS = ("degraded", "converged", "accepted", "agreement", "stop_reason", "n_unparsed")

_OF_A_CALL = (
    *("answered_by", "template", "template_digest", "finish_reason", "note", "cost", "saved", "value"),
    *("started", "queued_seconds", "first_token_seconds", "seconds", "attempts", "unreported", "repeats", "cached"),
    *("error", "error_kind"),
)
"""What a record calls as a call does."""


def _call_of(record: Mapping[str, Any]) -> Call:
    from moa_nb.pipeline.result import Call

    return Call(
        record["agent"],
        record["model"],
        text=record["text"],
        usage=Usage(**record.get("usage", {})),
        parameters=tuple(record.get("parameters", {}).items()),
        **{name: record[name] for name in _OF_A_CALL if name in record},
    )


def _missing(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each text and value that was cut when the record was saved."""
    calls = [(f"the answer of {call['agent']}", call) for layer in record["layers"] for call in layer["calls"]]
    for what, said in [("the answer", record), *calls]:
        if said.get("is_cut"):
            yield f"{what} was cut when it was saved: {len(said['text']):,} of {said['n_characters']:,} characters are here"
        if said.get("value_is_cut"):
            yield f"the value of {what} was left out when it was saved"
