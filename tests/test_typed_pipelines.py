"""Every verb with every preset: right values of the right types, an estimate that covers them, layers and traces."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import moa_nb as moa
from moa_nb.chat import Message
from moa_nb.frames.run import FrameRun
from moa_nb.testing import ChatServer, Reply
from moa_nb.tokens import count_prompt_tokens, count_tokens

_SHIPPED = files("moa_nb") / "templates" / "pipelines"
_PRESETS = Path(str(_SHIPPED)) if _SHIPPED.is_dir() else Path(moa.__file__).parents[1] / "templates" / "pipelines"

_FENCE = re.compile(r"\[[0-9a-f]{18}\]")

_SAYINGS = {
    "[[number]]": "Most say so.\n[[1]]",
    "Verdict: correct": "It fits.\nVerdict: correct",
    '{"keep": ': '{"keep": [1, 2], "end": false}',
    "Category: ": "Category: strong",
    "[[0.85]]": "Hardly.\n[[0.30]]",
    "[[A]]": "The first.\n[[A]]",
    "[[rating]]": "Good.\nRating: [[8]]",
    "demanding colleague": "Nothing is wrong.",
    "Compare the two answers": "Nothing to change.",
}
"""What judges and others who are no proposers say, by a mark of what they are asked."""


def said(body: dict[str, Any]) -> Reply:
    """What a sensible model answers, with tokens as a service counts them."""
    messages = [Message(message["role"], message["content"]) for message in body["messages"]]
    text = _answer(body["model"], messages)
    prompt, written = count_prompt_tokens(messages), count_tokens(text)
    return Reply(text, usage={"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written})


def _answer(model: str, messages: list[Message]) -> str:
    users = [message.content for message in messages if message.role == "user"]
    own_words = _FENCE.split(users[-1])[0]
    known = next((answer for mark, answer in _SAYINGS.items() if mark in own_words), None)
    if known is not None:
        return known
    if "improved: yes" in " ".join(message.content for message in messages if message.role == "system"):
        return "improved: no"
    # A debate goes on in turns: the question is the first of them.
    asked = users[-1] if "JSON" in own_words or '- "' in users[-1] else users[0]
    return _filled_in(model, asked)


def _filled_in(model: str, asked: str) -> str:
    parts = _FENCE.split(asked)
    if '- "better"' in parts[0]:
        first, second = (len(part.strip()) for part in (parts[-4], parts[-2]))
        return json.dumps({"better": "A" if first > second else "B" if second > first else "tie"})
    text = parts[-2] if len(parts) > 2 else asked
    is_odd = "odd" in text and model == "c"
    likes = ("love" in text) ^ is_odd
    values: dict[str, Any] = {
        "label": "praise" if likes else "bug",
        "labels": ["praise"] if likes else ["billing", "bug"],
        "score": 9 if likes else 2,
        "holds": likes,
        "mood": "good" if likes else "bad",
        "price": 9.5 if "9.50" in text else None,
        "when": "2024-05-01",
        "parts": ["bag"],
    }
    wanted = re.findall(r'^- "(\w+)":', asked, re.MULTILINE)
    if not wanted:
        return f"All {len(parts) - 2} of them, and 42 besides."
    return json.dumps({name: values[name] for name in dict.fromkeys(wanted)})


SCHEMA = {"price": float | None, "mood": ["good", "bad"], "when": dt.date, "parts": list[str]}

VERBS: dict[str, Callable[[Any], Any]] = {
    "extract": lambda verbs: verbs.extract("t", SCHEMA),
    "classify": lambda verbs: verbs.classify("t", {"praise": "likes it", "bug": "", "billing": "about money"}),
    "labels": lambda verbs: verbs.classify("t", ["praise", "bug", "billing"], multi=True),
    "score": lambda verbs: verbs.score("t", "how content the writer is"),
    "filter": lambda verbs: verbs.filter("t", "the writer likes it"),
    "prefer": lambda verbs: verbs.prefer("t", "other", "which says more"),
    "summarize": lambda verbs: verbs.summarize("t", by="g", instruction="How many?"),
}

FRAME = pd.DataFrame(
    {
        "t": ["I love it for 9.50", "It crashes, which is odd", None, "I love it for 9.50", "Billing is wrong"],
        "other": ["short", "the much longer text of the two", "x", "short", "Billing is right"],
        "g": ["x", "y", "x", "x", None],
    },
    index=[7, 7, 3, 2, 1],
)

CATEGORIES = ["praise", "bug", "billing"]


def missing_as_none(values: Any) -> list[Any]:
    """The cells of a Series, with ``None`` for whatever is missing."""
    return [cell if isinstance(cell, list) or not pd.isna(cell) else None for cell in values]


@pytest.mark.parametrize("preset", sorted(path.stem for path in _PRESETS.glob("*.toml")))
def test_every_verb_takes_every_pipeline(preset: str, server: ChatServer) -> None:
    """Values and dtypes are right, calls and dollars within the estimate, and looking afterwards sends nothing."""
    server.on("*", said)
    price = {"prompt_price": 1.0, "completion_price": 1.0}
    moa.configure(
        providers={"lab": {"base_url": server.base_url}},
        proposers=["lab:a", "lab:b", "lab:c"],
        aggregator="lab:z",
        judge="lab:j",
        small="lab:s",
        strong="lab:z",
        models={f"lab:{name}": price for name in "abcjsz"},
        ask_above=100,
        pipeline=preset,
    )
    found = {}
    for verb, speak in VERBS.items():
        server.clear()
        estimate = speak(FRAME.moa.estimate)
        assert server.count() == 0
        found[verb] = speak(FRAME.moa)
        run = moa.last()
        assert isinstance(run, FrameRun)
        assert run.errors.isna().all(), (verb, run.errors.tolist())
        assert estimate.low.n_calls <= server.count() <= estimate.high.n_calls, verb
        assert estimate.low.priced <= run.costs.sum() + 1e-9, verb
        assert run.costs.sum() <= estimate.high.priced + 1e-9, verb
        n_sent = server.count()
        assert len(run.layers) == len(run.report) == len(found[verb])
        assert all(result.layers for result in run.traces())
        agreement = run.agreement.dropna()
        assert agreement.between(0, 1).all()
        assert run.review(below=2).position.isin(range(len(FRAME))).all()
        assert run.review(below=0).empty
        assert server.count() == n_sent
    assert missing_as_none(found["score"]) == [9, 2, None, 9, 2]
    assert found["score"].dtype == "Int64"
    assert found["filter"].dtype == "boolean"
    assert missing_as_none(found["filter"]) == [True, False, None, True, False]
    assert found["classify"].cat.categories.tolist() == CATEGORIES
    assert missing_as_none(found["classify"]) == ["praise", "bug", None, "praise", "bug"]
    assert missing_as_none(found["labels"]) == [["praise"], ["bug", "billing"], None, ["praise"], ["bug", "billing"]]
    assert missing_as_none(found["prefer"])[1] == "other"
    assert found["prefer"].cat.categories.tolist() == ["t", "other", "tie"]
    extracted = found["extract"]
    assert extracted.dtypes.astype(str).to_dict() == {
        "price": "Float64",
        "mood": "category",
        "when": "datetime64[us]",
        "parts": "object",
    }
    assert missing_as_none(extracted["price"]) == [9.5, None, None, 9.5, None]
    assert missing_as_none(extracted["mood"]) == ["good", "bad", None, "good", "bad"]
    for aligned in ("extract", "classify", "labels", "score", "filter", "prefer"):
        assert found[aligned].index.equals(FRAME.index)
    assert found["summarize"].notna().all()
    assert found["summarize"].index.tolist()[:2] == ["x", "y"]
