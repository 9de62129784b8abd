"""The places where people read text, each filled with hostile text in the way in which text gets there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

import moa_nb as moa
from moa_nb.chat import Message
from moa_nb.engine.engine import current
from moa_nb.engine.plan import Options
from moa_nb.engine.task import make_task
from moa_nb.errors import MoaError
from moa_nb.panels.tables import table
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.testing import ChatServer, Reply

__all__ = ["PLACES", "Forms", "answering", "configure", "in_folder"]

Forms = dict[str, Any]
"""What is shown, by media type."""

_QUESTION = "question:"


def answering(server: ChatServer) -> None:
    """Have a server say whatever it is asked after: as an answer, with reasoning, as an error."""

    def asked(body: dict[str, Any]) -> str:
        said = [str(turn["content"]) for turn in body["messages"]]
        return next((text.partition(_QUESTION)[2] for text in said if _QUESTION in text), said[-1])

    server.on("*", asked)
    server.on("alpha", asked)
    server.on("beta", lambda body: Reply.bad_request(asked(body)))
    server.on("gamma", lambda body: Reply(asked(body), reasoning=asked(body), model=asked(body)[:2000]))


def configure(address: str, **values: Any) -> None:
    """Use the server at an address: ``alpha`` and ``delta`` repeat what they are asked, ``beta`` does so as an error."""
    price = {"prompt_price": 1.0, "completion_price": 1.0}
    models = ("alpha", "beta", "gamma", "delta")
    moa.configure(
        **{
            "providers": {"lab": {"base_url": address}},
            "proposers": ["lab:alpha", "lab:beta", "lab:delta"],
            "aggregator": "lab:gamma",
            "models": {f"lab:{name}": price for name in models},
            **values,
        }
    )


# Where text gets ----------------------------------------------------------------------------------


def _run(evil: str, pipeline: Any = "moa-lite", **options: Any) -> Result:
    try:
        return moa.run(_QUESTION + _writable(evil), pipeline=pipeline, **options)
    except MoaError as error:
        return error.result or Result("", "none", error=str(error))


def _writable(text: str) -> str:
    """Return a text that can be sent and that data frames can hold."""
    return text.encode("utf-8", "replace").decode()


def _forms(shown: Any) -> Forms:
    """Return what an object shows of itself in a notebook."""
    if hasattr(shown, "_repr_mimebundle_"):
        return dict(shown._repr_mimebundle_())
    forms: Forms = {"text/plain": repr(shown)}
    for kind, name in (("text/html", "_repr_html_"), ("text/markdown", "_repr_markdown_")):
        if hasattr(shown, name):
            forms[kind] = getattr(shown, name)()
    return forms


def run(evil: str) -> Iterator[Forms]:
    """Question, proposals, errors, reasoning, answer, the model that is said to have answered."""
    yield _forms(_run(evil))


def names(evil: str) -> Iterator[Forms]:
    """Models, in a layer and in the error that says that one is not there."""
    evil = _writable(evil)
    with _configured(proposers=[f"lab:{evil}", "lab:alpha"]):
        yield _forms(_run("names"))
    with _configured(aggregator=f"nowhere:{evil}"):
        yield _forms(_run("a provider", "single"))


def failed(evil: str) -> Iterator[Forms]:
    """A run without an answer, and what it raises."""
    with _configured(aggregator="lab:beta"):
        shown = _run(evil, "single")
    yield {**_forms(shown), "error": shown.error}


def made(evil: str) -> Iterator[Forms]:
    """All that can be text in a run, as a file or a strategy of somebody else's may have made it."""
    call = Call(
        *(evil, f"lab:{evil}", (Message("user", evil),), evil + "!"),
        reasoning=evil,
        note=evil,
        answered_by=evil,
        template=evil,
        parameters=((evil[:2000], evil[:2000]),),
        finish_reason=evil,
    )
    layers = (
        Layer(evil, (call, replace(call, text="", error=evil))),
        Layer("round 1", (replace(call, value=evil), replace(call, value={evil: evil}))),
        Layer(f"{evil} › samples", (replace(call, value=evil), replace(call, value=evil + "!"))),
        Layer("routing", (call,), aside=True),
        Layer("verdicts", (call, call), aside=True),
    )
    result = Result(
        *(evil, evil, layers, {evil: evil}, 1.0),
        notes=(evil,),
        conversation=(Message("system", evil), Message("user", evil)),
        stop_reason=evil,
        degraded=True,
        error=evil,
    )
    yield _forms(result)
    yield _forms(result.replace(error=None))
    yield _forms(moa.difference(result, result.replace(text=evil[::-1], pipeline="other")))


def estimated(evil: str) -> Iterator[Forms]:
    """What would be sent, before it is."""
    from moa_nb.notebook import running
    from moa_nb.panels.dry_run import bundle

    engine = current()
    for options in (Options(), Options(pipeline=_pipeline(evil))):
        plan = engine.finish(engine.plan(options))
        estimate = running.estimated(engine, plan, make_task(f"{_QUESTION}{evil}"))
        yield bundle(estimate)
        yield _forms(estimate)


def _pipeline(evil: str) -> moa.Pipeline:
    return moa.Pipeline(name=evil, description=evil, layers=[["lab:alpha", "lab:delta"], ["$aggregator"]])


def pipeline(evil: str) -> Iterator[Forms]:
    """A pipeline's name, in its run and in its description."""
    yield _forms(_pipeline(evil).explain())
    yield _forms(_run("named", _pipeline(evil)))


def compared(evil: str) -> Iterator[Forms]:
    """Several answers side by side."""
    from moa_nb.panels.comparison import Comparison

    one, other = _run(evil, "single"), _run(evil)
    judged = one.replace(error=evil, notes=(evil,))
    yield _forms(Comparison({evil: one, "moa-lite": other, "failed": judged}, {evil: 0.5}, judged))
    yield _forms(moa.difference(one, other))


def chat(evil: str) -> Iterator[Forms]:
    """A conversation."""
    from moa_nb.panels.chat import ChatDisplay, EarlierTurns
    from moa_nb.store.conversations import Turn

    turns = (Turn(evil, evil, evil, "run", "cell", 0.0),) * 2
    yield _forms(ChatDisplay(evil, turns))
    yield _forms(EarlierTurns(evil, turns))


def listing(evil: str) -> Iterator[Forms]:
    """A small table, as all listings are."""
    yield _forms(table([(evil, 1), (1.5, None)], [evil, "n"], evil))


def frame(evil: str) -> Iterator[Forms]:
    """Column names, labels, cells, answers and errors of a frame: its report, its preview, a row."""
    from moa_nb.frames.figures import view_of_run
    from moa_nb.panels.frame_report import bundle

    evil = _writable(evil)
    rows = pd.DataFrame({evil: [_QUESTION + evil, evil, None]}, index=pd.Index([evil, "b", "c"], name=evil))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for model in ("lab:alpha", "lab:beta"):
            rows.moa.synthesize(evil, pipeline="single", aggregator=model, progress=False)
            yield bundle(view_of_run(moa.last()._execution))
    yield {"error": "\n".join(str(one.message) for one in said)}
    yield _forms(moa.last())
    yield _forms(moa.last().trace(0))
    yield _forms(rows.moa.preview.synthesize(evil, progress=False))
    estimate = rows.moa.estimate.synthesize(evil)
    yield {**_forms(estimate), "error": str(estimate)}


def playground(evil: str) -> Iterator[Forms]:
    """A template that is tried: rows, prompts, answers, versions, what differs, what is wrong; also what the editor gets."""
    from moa_nb.notebook.playground import static

    evil = _writable(evil)
    rows = pd.DataFrame({evil: [evil, "other"]}, index=[evil, "b"])
    pg = moa.Playground(rows, evil, pipeline=_pipeline(evil))
    yield static.bundle(pg)
    pg.run()
    pg.keep(evil[:200].strip() or "blanks")
    pg.edit("synthesize", "{% raw %}" + evil.replace("endraw", "") + "{% endraw %}")
    yield static.bundle(pg)
    yield _forms(pg.difference())
    yield static.bundle(pg)
    yield _forms(pg.sample(2, both=True))
    yield static.bundle(pg)
    pg.edit("synthesize", "{{ '" + evil.replace("'", "") + "'.nothing }}")
    yield static.bundle(pg)


def growing(evil: str) -> Iterator[Forms]:
    """A panel while its run goes on."""
    from moa_nb.panels import html
    from moa_nb.panels.view import CallView, LayerView, PanelView

    states = ("waiting", "queued", "answering", "done", "failed")
    calls = tuple(CallView(evil, evil, state=state, text=evil, error=evil, note=evil) for state in states)  # type: ignore[arg-type]
    view = PanelView(evil, "running", evil, evil, (LayerView(evil, calls, evil),), notes=(evil,), flags=(evil,))
    pieces = [html.header(view), html.answer(view), html.layer_heading(view.layers[0])]
    yield {"text/html": "".join([*pieces, *(html.row(call, 1.0) for call in calls)])}


def answer(evil: str) -> Iterator[Forms]:
    """An answer alone, as ``-f`` shows it."""
    from moa_nb.notebook import display

    result = _run(evil, "single")
    for form in ("markdown", "text"):
        yield display._forms(result, form)


def form(evil: str) -> Iterator[Forms]:
    """A panel with buttons, and what was asked again below it."""
    from moa_nb.notebook.form import LiveForm, Rerun

    shown = LiveForm(_run(evil, "single"))
    shown.reruns += [Rerun(evil[:60], _run(evil)), Rerun(evil[:60], _run(evil + " ", "single"))]
    yield shown.bundle()


PLACES: dict[str, Callable[[str], Iterator[Forms]]] = {
    one.__name__: one
    for one in (
        *(run, names, failed, made, estimated, pipeline, compared, chat, listing, frame, playground, growing, answer),
        form,
    )
}


@contextmanager
def _configured(**values: Any) -> Iterator[None]:
    from moa_nb import settings

    before = {name: getattr(settings.current(), name) for name in values}
    moa.configure(**values)
    try:
        yield
    finally:
        moa.configure(**before)


# Files --------------------------------------------------------------------------------------------


def in_folder(folder: Path, texts: list[str]) -> list[str]:
    """Return the names of templates and pipelines that were put into a project: named by texts, and full of them."""
    (folder / "moa.toml").touch()
    known = []
    for kind, ending in (("prompts", ".jinja"), ("pipelines", ".toml")):
        place = folder / "templates" / kind
        place.mkdir(parents=True, exist_ok=True)
        for text in texts:
            name = text.replace("/", "∕").replace("\0", "")[:60]
            try:
                (place / f"{name}{ending}").write_text(text if kind == "prompts" else _toml(text), "utf-8", "replace")
            except (OSError, ValueError):  # no file of this system can be called so
                continue
            known.append(name)
    return known


def _toml(text: str) -> str:
    quoted = "".join(
        f"\\u{ord(one):04x}" if ord(one) < 0x10000 else one for one in text if not 0xD800 <= ord(one) < 0xE000
    )
    return f'description = "{quoted}"\nlayers = [["lab:alpha"], ["$aggregator"]]\n'
