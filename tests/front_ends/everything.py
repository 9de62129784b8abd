"""A small notebook that uses all that shows something, and what must be in its file when it was run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator
from typing import Any

import nbformat
from test_kernel import KEY, STATIC, WIDGET, setup

from moa_nb.testing import ChatServer, Reply

__all__ = [
    "ANSWER",
    "ANSWERS",
    "ASKED",
    "BACKGROUND",
    "ENDING",
    "FAILS",
    "FORM",
    "HANGS",
    "LAST_WORDS",
    "RESULT",
    "ROWS",
    "START",
    "check_panel",
    "check_saved",
    "code",
    "notebook",
    "script",
    "sources",
    "with_widgets",
]

PICTURE = "![pixel](https://evil.example/pixel.png)"
"""What nobody may ask for, wherever it is shown."""

LAST_WORDS = "In one sentence: it was the price."
ANSWER = (
    "Churn rose because prices went up in March and the **support queue** doubled. The notes name two reasons:\n\n"
    f"1. the price change\n2. slow answers from support\n\n{LAST_WORDS}\n\n{PICTURE}"
)

HANGS, FAILS = "asked for ever", "asked in vain"
"""What the last question says: it is never answered, or refused."""

START, ASKED, FORM, ROWS, REPORT, BACKGROUND, RESULT, MISTAKE, ENDING, MUST_NOT_RUN = range(10)
"""The cells, by number."""

ANSWERS = (ASKED, FORM, BACKGROUND)
"""Those that show the panel of an answer."""


class Words(list[str]):
    """The words of an answer, which stops in the middle while somebody looks at it."""

    def __init__(self, text: str, is_looked_at: Callable[[], bool]) -> None:
        super().__init__(re.findall(r"\s*\S+", text))
        self._is_looked_at = is_looked_at

    def __iter__(self) -> Iterator[str]:
        words = [*super().__iter__()]
        yield from words[: len(words) // 2]
        while self._is_looked_at():
            yield ""
        yield from words[len(words) // 2 :]


def script(server: ChatServer, looked_at: Container[str]) -> None:
    """Have the models answer: in words that stream, row by row, never, or not at all, as they are asked.

    Args:
        server: who answers.
        looked_at: the places in which somebody looks at the first panel while it lives: its answer goes on afterwards.
    """

    def answer(body: dict[str, Any]) -> Reply:
        asked = str(body["messages"])
        if HANGS in asked:
            return Reply.hanging()
        if FAILS in asked:
            return Reply.bad_request("not today")
        if "row" in asked:
            return Reply("fine", delay=0.3)
        if body["model"] != "gamma":
            return Reply(ANSWER)
        place = re.search(r"Why did it rise, in ([^?]*)\?", asked)
        words = Words(ANSWER, lambda: place is not None and place[1] in looked_at)
        return Reply(ANSWER, token_delay=0.02, chunks=words)

    for model in ("alpha", "beta", "gamma"):
        server.on(model, answer)


def sources(server: ChatServer, place: str, *, ending: str) -> list[str]:
    """Return the cells.

    Args:
        server: who answers.
        place: a word for where it is run: nobody else asks the same, so that all of it is really asked.
        ending: ``HANGS``, for a cell that somebody interrupts, or ``FAILS``.
    """
    return [
        setup(server, concurrency=8) + "\nimport ipykernel; print('ipykernel', ipykernel.__version__)",
        f"%%moa answer\nWhy did it rise, in {place}?\n\n{PICTURE}",
        "%moa last",
        f"out = pd.Series([f'{place} row {{n}}' for n in range(32)]).moa.synthesize(pipeline='single', progress=True)",
        "moa.last()",
        f"%%moa later -b\nin the background, in {place}",
        "print(later.result.text)",
        "%%moa -m nobody:x\nwho?",
        f"%%moa -p single\n{ending}, in {place}",
        "print('must not' + ' run')",
    ]


def notebook(server: ChatServer, place: str, kernel: str, *, ending: str) -> nbformat.NotebookNode:
    """Return them as a notebook; the mistake in it stops nobody."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources(server, place, ending=ending)]
    cells[MISTAKE].metadata["tags"] = ["raises-exception"]
    made = {"name": kernel, "display_name": f"ipykernel {kernel}", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": made})


def check_saved(saved: nbformat.NotebookNode, version: str, said: str) -> None:
    """Check that the file of a notebook that was run has a static panel in each cell, and no key.

    What a bar and a background run leave behind has tests of its own.

    Args:
        saved: the notebook.
        version: what the version of its ipykernel begins with.
        said: what the last cell that ran says in its one line.
    """
    cells = code(saved)
    text = nbformat.writes(saved)
    assert KEY not in text
    assert "Traceback" not in text
    assert f"ipykernel {version}" in cells[START].outputs[0].text
    for number in (ASKED, FORM):
        check_panel(cells[number])
    assert "32 done" in cells[REPORT].outputs[0].data["text/html"]
    assert LAST_WORDS in cells[RESULT].outputs[0].text
    (mistake,) = cells[MISTAKE].outputs
    assert mistake.output_type == "stream"
    assert mistake.text.startswith("UsageError: ")
    assert mistake.text.count("\n") == 1
    panel, last = cells[ENDING].outputs
    assert set(panel.data) == STATIC
    line = last.text if last.output_type == "stream" else "\n".join(last.traceback)
    assert said in line
    assert "\n" not in line.strip()
    assert cells[MUST_NOT_RUN].outputs == []


def check_panel(cell: nbformat.NotebookNode) -> None:
    """Check that a cell's one output is an answer's static panel, in all its forms."""
    (panel,) = cell.outputs
    assert panel.output_type == "display_data"
    assert set(panel.data) == STATIC, panel.data["text/plain"]
    assert all(LAST_WORDS in panel.data[kind] for kind in ("text/html", "text/markdown", "text/plain"))


def code(saved: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the cells of a notebook that are code: papermill puts others between them."""
    return [cell for cell in saved.cells if cell.cell_type == "code"]


def with_widgets(saved: nbformat.NotebookNode) -> list[str]:
    """Return the sources of the cells whose outputs are widgets, which a file cannot show."""
    return [cell.source for cell in code(saved) if WIDGET in json.dumps(cell.outputs)]
