"""Whatever the index, the missing values and the faults: the result is the frame's, row for row."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.frames.run import FrameRun, RowsFailed
from moa_nb.testing import ChatServer, Reply


class Faults:
    """A model that does what a row's text says: ``kind/id`` is echoed after the fault of that kind."""

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds
        self._met: set[str] = set()

    def __call__(self, body: dict[str, Any]) -> Reply:
        """Return the fault of the text, if this model has it; the passing ones only once a text."""
        text = str(body["messages"][-1]["content"])
        kind = text.partition("/")[0]
        if kind in self._kinds:
            if kind == "refused":
                return Reply.bad_request("No")
            if kind == "empty":
                return Reply("")
            if text not in self._met:
                self._met.add(text)
                return Reply.rate_limited(retry_after=0.001) if kind == "busy" else Reply.dropped()
        return Reply(text)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    """A server whose judge refuses, and whose proposer alpha fails in passing."""
    with ChatServer() as server:
        yield server


LABELS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(["a", "b", "", "é"]),
    st.none(),
    st.floats(allow_nan=True, width=16),
    st.tuples(st.integers(0, 1), st.sampled_from("xy")),
)

ROWS = st.lists(
    st.tuples(
        LABELS,
        st.sampled_from(["fine", "fine", "refused", "empty", "busy", "reset", "missing", "blank"]),
        st.integers(0, 6),
    ),
    max_size=24,
)


def text_of(kind: str, number: int) -> str | None:
    """A row's text."""
    return {"missing": None, "blank": " \n"}.get(kind, f"{kind}/{number}")


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, concurrency=st.integers(1, 5), as_series=st.booleans())
def test_every_row_has_its_own_answer(server: ChatServer, rows: list[Any], concurrency: int, as_series: bool) -> None:
    """The result has the frame's index in order; each row its own answer, or none for a reason of its own."""
    server.on("alpha", Faults("busy", "reset", "refused"))
    server.on("beta", Faults("busy", "empty"))
    server.on("judge", Faults("refused", "empty", "busy"))
    moa.configure(
        providers={"lab": {"base_url": server.base_url, "concurrency": concurrency}},
        proposers=["lab:alpha", "lab:beta"],
        aggregator="lab:judge",
    )
    labels = pd.Index([label for label, _, _ in rows], dtype=object, tupleize_cols=False)
    frame = pd.DataFrame({"q": [text_of(kind, number) for _, kind, number in rows]}, index=labels, dtype=object)
    before = frame.copy(deep=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RowsFailed)
        answers = frame["q"].moa.synthesize(progress=False) if as_series else frame.moa.synthesize("q", progress=False)
    wanted = [
        None if kind in {"refused", "empty", "missing", "blank"} else text
        for (_, kind, _), text in zip(rows, frame["q"], strict=True)
    ]
    assert [None if missing else answer for answer, missing in zip(answers, answers.isna(), strict=True)] == wanted
    pd.testing.assert_index_equal(answers.index, frame.index)
    pd.testing.assert_frame_equal(frame, before)
    run = moa.last()
    assert isinstance(run, FrameRun)
    is_failed = [kind in {"refused", "empty"} for _, kind, _ in rows]
    assert run.errors.notna().to_list() == is_failed
    assert sum(issubclass(warning.category, RowsFailed) for warning in caught) == any(is_failed)
    assert run.state == "done"
    assert run.progress.done == len(rows)
