"""Runs as training data: what a line says, which rows are left out, what a judge prefers, and that others can read it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import re
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.chat import Message
from moa_nb.engine import current
from moa_nb.errors import KeyRejected, SetupError, SpendingNotAgreed
from moa_nb.frames.training import Exported, ExportRow, export
from moa_nb.frames.training.examples import digest
from moa_nb.pipeline import presets
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.testing import ChatServer, Reply

Lab = Callable[..., None]

TEXT = "The mill closed in May. Forty people lost their work. The town bought the mill in June."


def result(prompt: str = "Why?", text: str = "So.", **more: Any) -> Result:
    """A run of two agents and an aggregator, of which only the texts matter."""
    calls = (Call("a", "lab:a", text="A guess.", cost=0.25), Call("b", "lab:b", text="Another.", cost=0.25))
    layers = (Layer("layer 1", calls), Layer("layer 2", (Call("z", "lab:z", text=text, cost=0.5),)))
    values = {"pipeline": "moa-lite", "layers": layers, "conversation": (Message("user", prompt),), **more}
    return Result(text=text, **values)


def write(path: Path, results: Iterable[Result | ExportRow], **options: Any) -> Exported:
    """Return what an export of a run's results wrote; a pipeline's name or ``moa-lite`` is what answered."""

    async def rows() -> AsyncIterator[ExportRow]:
        for position, one in enumerate(results):
            yield one if isinstance(one, ExportRow) else ExportRow(position, f"row {position}", one)

    pipeline = options.pop("pipeline", "moa-lite")
    pipeline = presets.load(pipeline) if isinstance(pipeline, str) else pipeline
    return current().finish(export(path, rows(), run_id="run-1", pipeline=pipeline, **options))


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what the lines of a file say; each line is one, however lines are told apart."""
    text = path.read_bytes().decode("utf-8")
    assert text.splitlines() == text.split("\n")[:-1]
    return [json.loads(line) for line in text.splitlines()]


def loaded(files: Path | list[Path], folder: Path) -> Any:
    """Return the lines of files as the datasets library reads them."""
    datasets = pytest.importorskip("datasets", reason="the datasets library reads the file back")
    datasets.disable_progress_bars()
    return datasets.load_dataset(
        "json",
        data_files=[str(file) for file in (files if isinstance(files, list) else [files])],
        split="train",
        cache_dir=str(folder),
    )


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The datasets library asks nobody, and keeps what it keeps in the test's own folder."""
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "HF_DATASETS_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)


# What a line says -------------------------------------------------------------------------------


def test_a_run_of_offline_agents_becomes_chat_lines(tmp_path: Path) -> None:
    """The conversation as it was asked and the final answer; who answered, and how, stands beside them."""
    pipeline = moa.Pipeline(layers=[["offline:textrank", "offline:lead"], ["offline:consensus"]])
    prompts = [f"Summarize in one sentence: {TEXT}", f"Summarize in two sentences: {TEXT}"]
    results = [moa.run(prompt, pipeline=pipeline) for prompt in prompts]
    made = write(tmp_path / "train.jsonl", results, pipeline=pipeline)
    assert str(made) == repr(made) == "train.jsonl: 2 lines from 2 rows"
    for line, prompt, told in zip(lines(made.path), prompts, results, strict=True):
        assert line["messages"] == [{"role": "user", "content": prompt}, {"role": "assistant", "content": told.text}]
        assert [one["model"] for one in line["provenance"]["models"]] == [call.model for call in told.calls]
        assert line["provenance"]["cost"] == "0.0"


def test_a_line_says_where_its_answer_comes_from(server: ChatServer, lab: Lab, tmp_path: Path) -> None:
    """Run, row, label, pipeline, each layer's models with template and parameters, cost, version; no internal prompt."""
    server.on("z", "The answer.")
    server.on("*", lambda body: f"A proposal of {body['model']}.")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why did the mill close?"}]
    told = moa.run(turns, pipeline="moa-lite", max_tokens=50)
    label = (np.int64(7), pd.Timestamp("2024-05-01"))
    made = write(tmp_path / "train.jsonl", [ExportRow(4, label, told, agreement=0.75)])
    (line,) = lines(made.path)
    assert line["messages"] == [*turns, {"role": "assistant", "content": "The answer."}]
    origin = line["provenance"]
    assert (origin["run_id"], origin["row"], origin["pipeline"]) == ("run-1", 4, "moa-lite")
    assert json.loads(origin["label"]) == [7, "2024-05-01 00:00:00"]
    assert (origin["agreement"], origin["score"], origin["moa_nb"]) == ("0.75", "null", moa.__version__)
    assert json.loads(origin["cost"]) == pytest.approx(told.cost)
    assert [one["model"] for one in origin["models"]] == ["lab:a", "lab:b", "lab:c", "lab:z"]
    first, last = origin["models"][0], origin["models"][-1]
    assert (first["template"], first["template_digest"], last["template"]) == ("", "", "synthesize")
    assert last["template_digest"] == told.calls[-1].template_digest
    assert json.loads(first["parameters"])["max_tokens"] == 50
    assert "A proposal of" not in made.path.read_text("utf-8")


def test_a_cached_answer_costs_what_it_took(server: ChatServer, lab: Lab, tmp_path: Path) -> None:
    """The cost in the provenance is the same whether the row was paid now or earlier."""
    server.on("*", "An answer.")
    paid, cached = moa.run("Why?", pipeline="moa-lite"), moa.run("Why?", pipeline="moa-lite")
    costs = [
        json.loads(lines(write(tmp_path / name, [one]).path)[0]["provenance"]["cost"])
        for name, one in (("paid.jsonl", paid), ("cached.jsonl", cached))
    ]
    assert cached.cost == 0
    assert costs[0] == costs[1] == paid.cost > 0


def test_no_key_is_written(tmp_path: Path) -> None:
    """A parameter whose name says that it is a key is hidden, at whatever depth."""
    parameters = (
        ("temperature", 0.5),
        ("extra_body", {"api_key": "sk-1", "headers": [{"Authorization": "Bearer sk-2"}]}),
    )
    call = Call("a", "lab:a", text="So.", parameters=parameters)
    made = write(tmp_path / "train.jsonl", [result(layers=(Layer("layer 1", (call,)),))])
    assert "sk-" not in made.path.read_text("utf-8")
    assert json.loads(lines(made.path)[0]["provenance"]["models"][0]["parameters"])["temperature"] == 0.5


@pytest.mark.parametrize("format", ["chat", "preference"])
def test_the_provenance_can_stand_beside(tmp_path: Path, format: str) -> None:  # noqa: A002 - the option's name
    """A second file has it, line by line, and the first one nothing but what is learnt from."""
    results = [judged("One?", {"a": 3, "b": 9, "c": 4}), judged("Two?", {"a": 8, "b": 2, "c": 8})]
    inline = write(tmp_path / "inline.jsonl", results, pipeline="judge", format=format)
    made = write(tmp_path / "train.jsonl", results, pipeline="judge", format=format, provenance="beside")
    assert made.provenance == tmp_path / "train.provenance.jsonl"
    together = [
        {**data, "provenance": origin} for data, origin in zip(lines(made.path), lines(made.provenance), strict=True)
    ]
    assert together == lines(inline.path)


# Which rows -------------------------------------------------------------------------------------


def test_rows_are_left_out_for_a_reason(tmp_path: Path) -> None:
    """No answer, degraded, low or unknown agreement: each is counted under its name."""
    results = [
        result("1", agreement=0.9),
        result("2", agreement=0.9, degraded=True),
        result("3", agreement=0.2),
        result("4"),
        result("5", text="", error="too long"),
        result("6", agreement=0.6),
    ]
    made = write(tmp_path / "train.jsonl", results, min_agreement=0.6)
    reasons = {"degraded": 1, "of low agreement": 1, "of unknown agreement": 1, "without an answer": 1}
    assert (made.n_rows, made.n_lines, made.left_out) == (6, 2, reasons)
    assert "2 lines from 6 rows; 4 left out: 1 degraded, 1 of low agreement" in str(made)
    assert [line["messages"][0]["content"] for line in lines(made.path)] == ["1", "6"]
    assert write(tmp_path / "all.jsonl", results, skip_degraded=False).n_lines == 5


def test_of_equal_prompts_the_one_that_agrees_most_stays(tmp_path: Path) -> None:
    """White space and case do not count; a known agreement beats an unknown one, and of equals the first stays."""
    results = [
        result("Why  did it\nclose?", "first"),
        result("Other", "kept"),
        result("why did it close?", "second", agreement=0.4),
        result("WHY did it close?", "never", agreement=float("nan")),
        result("WHY DID IT CLOSE? ", "third", agreement=0.8),
        result("Why did it close?", "fourth", agreement=0.8),
        result("Last", "kept too"),
    ]
    for place in ("inline", "beside"):
        made = write(tmp_path / f"{place}.jsonl", results, provenance=place)
        assert [line["messages"][-1]["content"] for line in lines(made.path)] == ["kept", "third", "kept too"]
        assert made.left_out == {"with the prompt of another": 4}
        assert len(lines(made.provenance or made.path)) == 3


def test_scores_can_be_asked_for(tmp_path: Path) -> None:
    """An answer's score is what the run's judges rated it; it is in the provenance, and a bound for the rows."""
    results = [judged("One?", {"a": 3, "b": 9, "c": 4}), judged("Two?", {"a": 5, "b": 2, "c": 4})]
    made = write(tmp_path / "train.jsonl", results, pipeline="judge", min_score=8)
    (line,) = lines(made.path)
    assert (line["messages"][-1]["content"], line["provenance"]["score"]) == ("The answer of b.", "9.0")
    assert made.left_out == {"of low score": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "chats"}, "format cannot be 'chats'; did you mean 'chat'?"),
        ({"provenance": "besides"}, "provenance cannot be 'besides'; did you mean 'beside'?"),
        ({"format": "preference"}, "pipeline 'moa-lite' does not judge its answers: pass judge='provider:model'"),
        ({"judge": "lab:z"}, "pass format='preference'"),
        ({"format": "preference", "pipeline": "judge", "budget": 1}, "nobody is asked"),
        ({"min_agreement": 60}, "min_agreement is from 0 to 1, not 60"),
        ({"min_score": 7}, "pipeline 'moa-lite' rates no answers"),
        ({"min_score": 7, "pipeline": "judge-pairwise"}, "rates no answers"),
        ({"min_agreement": 0.5}, "no row is left to write to train.jsonl; 1 left out: 1 of unknown agreement"),
        ({"format": "preference", "judge": "offline:lead"}, "only picks sentences"),
        ({"format": "preference", "judge": "labb:z"}, "did you mean 'lab'?"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(lab: Lab, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    """And nothing is written."""
    (tmp_path / "out").mkdir()
    with pytest.raises(SetupError, match=re.escape(said)):
        write(tmp_path / "out" / "train.jsonl", [result()], **options)
    assert list((tmp_path / "out").iterdir()) == []


# Files ------------------------------------------------------------------------------------------


def test_a_file_is_only_replaced_when_told_so(tmp_path: Path) -> None:
    """Neither the data nor the provenance beside them."""
    path = tmp_path / "train.jsonl"
    write(path, [result(text="first")])
    with pytest.raises(SetupError, match=r"train\.jsonl is there already: pass overwrite=True"):
        write(path, [result(text="second")])
    assert "first" in path.read_text("utf-8")
    write(path, [result(text="second")], overwrite=True)
    assert [line["messages"][-1]["content"] for line in lines(path)] == ["second"]
    (tmp_path / "next.provenance.jsonl").write_text("mine")
    with pytest.raises(SetupError, match=r"next\.provenance\.jsonl is there already"):
        write(tmp_path / "next.jsonl", [result()], provenance="beside")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A folder, and a file in a folder that is not there."""
    with pytest.raises(SetupError, match="is a folder: name a file in it"):
        write(tmp_path, [result()])
    with pytest.raises(SetupError, match="there is no folder"):
        write(tmp_path / "none" / "train.jsonl", [result()])


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Rows that fail midway leave the old file as it was, and no other."""

    def failing() -> Iterable[Result]:
        yield result("One?")
        assert len(list(tmp_path.glob(".train.*"))) == 2
        raise ZeroDivisionError

    path = tmp_path / "train.jsonl"
    write(path, [result(text="old")], provenance="beside")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises(ZeroDivisionError):
        write(path, failing(), overwrite=True, provenance="beside")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


# What a run judged itself -----------------------------------------------------------------------


def judged(prompt: str, ratings: dict[str, float | None]) -> Result:
    """A run of ``judge`` whose only judge rated each model's answer so."""
    answers = tuple(Call(name, f"lab:{name}", text=f"The answer of {name}.") for name in ratings)
    verdicts = tuple(Call("z", "lab:z", text=f"[[{one}]]", value=one) for one in ratings.values())
    best = max(ratings, key=lambda name: ratings[name] or 0)
    layers = (Layer("answers", answers), Layer("verdicts", verdicts, aside=True))
    return result(prompt, f"The answer of {best}.", layers=layers, pipeline="judge")


def sentinels(server: ChatServer) -> None:
    """Let each proposer answer with a text that names it."""
    for model in "abc":
        server.on(model, f"SENTINEL-{model}")


def shown(body: dict[str, Any]) -> list[str]:
    """The texts that a judge is shown, in order."""
    return re.findall(r"^(?:SENTINEL-)(\w+)$", body["messages"][-1]["content"], re.MULTILINE)


def preferring(server: ChatServer, order: str, *, model: str = "z") -> None:
    """Let a judge prefer whoever stands first in ``order``, wherever it is shown."""

    def verdict(body: dict[str, Any]) -> str:
        first, second = shown(body)
        return "[[A]]" if order.index(first) < order.index(second) else "[[B]]"

    server.on(model, verdict)


def losers(made: Exported) -> list[tuple[str, str]]:
    """Who was chosen and who was rejected, line by line."""
    return [(line["chosen"][0]["content"], line["rejected"][0]["content"]) for line in lines(made.path)]


def test_a_rated_winner_is_preferred_to_what_is_rated_lower(server: ChatServer, lab: Lab, tmp_path: Path) -> None:
    """Pointwise: not to its equal, and not to what could not be rated. Nobody is asked again."""
    sentinels(server)
    server.on("z", lambda body: {"a": "[[6]]", "b": "[[9]]", "c": "[[9]]"}[shown(body)[0]])
    told = moa.run("Why?", pipeline="judge")
    n_asked = server.count()
    made = write(tmp_path / "train.jsonl", [told], pipeline="judge", format="preference")
    assert losers(made) == [("SENTINEL-b", "SENTINEL-a")]
    (line,) = lines(made.path)
    assert line["prompt"] == [{"role": "user", "content": "Why?"}]
    origin = line["provenance"]
    assert (origin["chosen_model"], origin["rejected_model"]) == ("lab:b", "lab:a")
    assert (origin["judges"], origin["method"], origin["score"]) == (["lab:z"], "pointwise", "9.0")
    assert (server.count(), made.n_calls) == (n_asked, 0)


def test_a_compared_winner_is_preferred_to_whom_it_beat_in_both_orders(
    server: ChatServer, lab: Lab, tmp_path: Path
) -> None:
    """Pairwise: a pair that the judge decides by place is no preference."""
    sentinels(server)

    def verdict(body: dict[str, Any]) -> str:
        first, second = shown(body)
        if {first, second} == {"b", "c"}:
            return "[[A]]"  # whoever stands first
        return "[[A]]" if second == "a" else "[[B]]"

    server.on("z", verdict)
    told = moa.run("Why?", pipeline="judge-pairwise")
    made = write(tmp_path / "train.jsonl", [told], pipeline="judge-pairwise", format="preference")
    assert losers(made) == [("SENTINEL-b", "SENTINEL-a")]
    assert lines(made.path)[0]["provenance"]["method"] == "pairwise, both orders"


@pytest.mark.parametrize("swap", [True, False])
def test_several_judges_count_together(server: ChatServer, lab: Lab, tmp_path: Path, swap: bool) -> None:
    """What most of their points say is preferred, with the verdicts in one order or in both."""
    sentinels(server)
    preferring(server, "bca")
    preferring(server, "bac", model="j")
    judges = ["lab:z", "lab:j", "lab:j"]
    pipeline = moa.Pipeline(strategy="judge", method="pairwise", judges=judges, swap=swap)
    made = write(tmp_path / "train.jsonl", [moa.run("Why?", pipeline=pipeline)], pipeline=pipeline, format="preference")
    assert losers(made) == [("SENTINEL-b", "SENTINEL-a"), ("SENTINEL-b", "SENTINEL-c")]
    origin = lines(made.path)[0]["provenance"]
    assert origin["judges"] == ["lab:z", "lab:j"]
    assert origin["method"] == f"pairwise, {'both orders' if swap else 'one order'}"


def test_a_row_that_was_not_judged_makes_no_pair(server: ChatServer, lab: Lab, tmp_path: Path) -> None:
    """Verdicts that cannot be read, one answer alone, and equal answers."""
    sentinels(server)
    server.on("z", "I cannot say.")
    pipeline = moa.Pipeline(strategy="judge", proposers=["lab:a", "lab:b"])
    told = [moa.run("Why?", pipeline=pipeline), judged("Two?", {"a": 9, "b": 3})]
    alone = judged("Three?", {"a": 9}).replace(conversation=(Message("user", "Three?"),))
    made = write(tmp_path / "train.jsonl", [*told, alone], pipeline=pipeline, format="preference", skip_degraded=False)
    assert (made.n_lines, made.left_out) == (1, {"without a preference": 2})


def test_services_get_pairs_in_their_own_form(tmp_path: Path) -> None:
    """The input, the preferred output and the other; their provenance beside, since services know no such field."""
    made = write(
        tmp_path / "train.jsonl", [judged("One?", {"a": 3, "b": 9})], pipeline="judge", format="openai-preference"
    )
    said = {"role": "assistant", "content": "The answer of b."}
    other = {"role": "assistant", "content": "The answer of a."}
    prompt = {"messages": [{"role": "user", "content": "One?"}]}
    assert lines(made.path) == [{"input": prompt, "preferred_output": [said], "non_preferred_output": [other]}]
    assert made.provenance is not None
    assert lines(made.provenance)[0]["judges"] == ["lab:z"]


# Asking a judge ---------------------------------------------------------------------------------


@pytest.fixture
def rows(server: ChatServer, lab: Lab) -> list[Result]:
    """Four rows of ``moa-lite``, each answered ``SENTINEL-z``; the judge ``lab:j`` likes it better than a and c."""
    price = {"prompt_price": 1.0, "completion_price": 1.0}
    lab(models={f"lab:{name}": price for name in "abczj"})
    sentinels(server)
    server.on("z", "SENTINEL-z")
    preferring(server, "bzac", model="j")
    return [moa.run(f"Question {number}?", pipeline="moa-lite") for number in range(4)]


def test_a_judge_prefers_the_answer_to_proposals(server: ChatServer, rows: list[Result], tmp_path: Path) -> None:
    """Each proposal is compared in both orders; only what wins both times is a pair. It is counted and in the ledger."""
    made = write(tmp_path / "train.jsonl", rows, format="preference", judge="lab:j")
    assert losers(made) == [("SENTINEL-z", "SENTINEL-a"), ("SENTINEL-z", "SENTINEL-c")] * 4
    asked = [line["prompt"][0]["content"] for line in lines(made.path)]
    assert asked == [f"Question {number}?" for number in range(4) for _ in range(2)]
    assert {record.body["temperature"] for record in server.asked("j")} == {0}
    assert (server.count("j"), made.n_calls) == (24, 24)
    origin = lines(made.path)[0]["provenance"]
    assert (origin["chosen_model"], origin["rejected_model"]) == ("lab:z", "lab:a")
    assert (origin["judges"], origin["method"]) == (["lab:j"], "pairwise, both orders")
    assert made.cost is not None
    assert made.cost > 0
    assert re.search(r"24 verdicts for \$0\.\d{4}", str(made))
    kept = moa.runs().set_index("title").loc["preferences of run-1"]
    assert (kept["state"], kept["calls"]) == ("done", 24)
    assert kept["cost"] == pytest.approx(made.cost)


def test_verdicts_are_not_paid_twice(server: ChatServer, rows: list[Result], tmp_path: Path) -> None:
    """A second export asks nobody."""
    first = write(tmp_path / "train.jsonl", rows, format="preference", judge="lab:j")
    again = write(tmp_path / "again.jsonl", rows, format="preference", judge="lab:j", budget=0.0)
    assert (server.count("j"), again.n_calls, again.cost) == (24, 24, 0)
    assert lines(again.path) == lines(first.path)


def test_a_place_is_no_preference(server: ChatServer, rows: list[Result], tmp_path: Path) -> None:
    """A judge that always likes what stands first prefers nothing."""
    server.on("j", "[[A]]")
    with pytest.raises(
        SetupError, match=r"no row is left to write to train\.jsonl; 4 left out: 4 without a preference"
    ):
        write(tmp_path / "train.jsonl", rows, format="preference", judge="lab:j")


def test_the_judge_keeps_to_its_budget(server: ChatServer, rows: list[Result], tmp_path: Path) -> None:
    """Rows that it could not pay are left out and counted; those before them are written."""
    made = write(tmp_path / "train.jsonl", rows, format="preference", judge="lab:j", budget="13 calls")
    assert server.count("j") <= 13
    assert (made.n_lines, made.left_out) == (4, {"over the budget": 2})


def test_nobody_spends_by_surprise(server: ChatServer, lab: Lab, rows: list[Result], tmp_path: Path) -> None:
    """Without a budget the judge may take what may be spent unasked; then one line says what to do."""
    price = {"prompt_price": 1.0, "completion_price": 1.0}
    lab(models={f"lab:{name}": price for name in "abczj"}, ask_above=0.003)
    with pytest.raises(SpendingNotAgreed, match=r"more than the \$0\.0030 that may be spent unasked: pass budget="):
        write(tmp_path / "train.jsonl", rows, format="preference", judge="lab:j")
    assert server.count("j") < 24
    assert not list(tmp_path.glob("*train*"))
    assert write(tmp_path / "train.jsonl", rows, format="preference", judge="lab:j", budget=1).n_lines == 8
    assert server.count("j") == 24


def test_a_wrong_key_ends_it_before_a_second_row(server: ChatServer, rows: list[Result], tmp_path: Path) -> None:
    """Nothing is written, and only the first row's verdicts were asked."""
    server.on("j", Reply.refused_key())
    with pytest.raises(KeyRejected):
        write(tmp_path / "train.jsonl", rows, format="preference", judge="lab:j")
    assert {record.text_of("user").count("Question 0?") for record in server.asked("j")} == {1}
    assert not list(tmp_path.glob("*train*"))


def test_an_export_that_is_stopped_leaves_no_file(server: ChatServer, rows: list[Result], tmp_path: Path) -> None:
    """The verdicts in flight are cancelled, and what came back stands in the ledger."""
    answered = threading.Event()

    def verdict(body: dict[str, Any]) -> str | Reply:
        if "Question 1?" in body["messages"][-1]["content"]:
            answered.set()
            return Reply.hanging()
        return "[[C]]"

    async def given_rows() -> AsyncIterator[ExportRow]:
        for position, one in enumerate(rows):
            yield ExportRow(position, position, one)

    server.on("j", verdict)
    options: dict[str, Any] = {"run_id": "run-1", "pipeline": presets.load("moa-lite"), "format": "preference"}
    job = current().start(export(tmp_path / "train.jsonl", given_rows(), judge="lab:j", **options))
    assert answered.wait(60)
    job.cancel()
    with pytest.raises((asyncio.CancelledError, concurrent.futures.CancelledError)):
        job.wait()
    assert not list(tmp_path.glob("*train*"))
    kept = moa.runs().set_index("title").loc["preferences of run-1"]
    assert (kept["state"], kept["calls"] >= 6) == ("stopped", True)


def test_a_judge_can_be_a_function(lab: Lab, rows: list[Result], tmp_path: Path) -> None:
    """What it says is read as a model's verdict."""

    def strict(prompt: str) -> str:
        first, _ = re.findall(r"^SENTINEL-(\w)$", prompt, re.MULTILINE)
        return "[[A]]" if first == "z" else "[[B]]"

    made = write(tmp_path / "train.jsonl", rows[:1], format="preference", judge=strict)
    assert [other for _, other in losers(made)] == ["SENTINEL-a", "SENTINEL-b", "SENTINEL-c"]
    assert (made.n_calls, made.cost) == (6, 0)


# Read by others ---------------------------------------------------------------------------------

HOSTILE = [
    "\ud83d half",
    "line\u2028one\u2029two\x85three",
    "nul\x00 tab\t end\r\n",
    'quote " and \\ back',
    "𝒳 é 語",
    "{}",
]


def test_the_datasets_library_reads_chat_lines(tmp_path: Path) -> None:
    """Its features, its rows and the text of each, hostile characters included, numbers that are not always known too."""
    results = [
        result(f"{number} {text}", text, agreement=(None, 0.5)[number % 2]) for number, text in enumerate(HOSTILE)
    ]
    made = write(tmp_path / "train.jsonl", results)
    read = loaded(made.path, tmp_path / "cache")
    assert (read.num_rows, read.column_names) == (len(HOSTILE), ["messages", "provenance"])
    assert set(read[0]["messages"][0]) == {"role", "content"}
    for row, line, text in zip(read, lines(made.path), HOSTILE, strict=True):
        assert row == line
        assert row["messages"][-1] == {"role": "assistant", "content": text.replace("\ud83d", "\ufffd")}


@pytest.mark.parametrize("format", ["preference", "openai-preference"])
def test_the_datasets_library_reads_preferences(tmp_path: Path, format: str) -> None:  # noqa: A002 - the option's name
    """Pairs and, where it is in a file of its own, their provenance."""
    results = [judged(f"{number} {text}", {"a": 3, "b": 9, "c": 4}) for number, text in enumerate(HOSTILE)]
    made = write(tmp_path / "train.jsonl", results, pipeline="judge", format=format)
    for file in filter(None, (made.path, made.provenance)):
        read = loaded(file, tmp_path / "cache")
        assert read.num_rows == 2 * len(HOSTILE)
        assert list(read) == lines(file)


def test_the_datasets_library_reads_several_runs_together(tmp_path: Path) -> None:
    """The columns are the same whatever is known of a row: figures and names, labels and parameters of any type."""
    template = {"template": "synthesize", "template_digest": "ab", "answered_by": "z-1"}
    knowing = Call("z", "lab:z", text="So.", cost=0.5, parameters=(("stop", ("a", "b")), ("seed", 1)), **template)
    unknowing = Call("z", "lab:z", text="So.", cost=None)
    runs = {
        "known": ExportRow(0, 7, result("1?", layers=(Layer("layer 1", (knowing,)),)), agreement=0.5),
        "unknown": ExportRow(0, ("a", None), result("2?", layers=(Layer("layer 1", (unknowing,)),))),
    }
    paths = [write(tmp_path / f"{name}.jsonl", [row]).path for name, row in runs.items()]
    for files in (paths, paths[::-1]):
        assert list(loaded(files, tmp_path / "cache")) == [line for file in files for line in lines(file)]


TEXTS = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(HOSTILE)
RUNS = st.lists(
    st.tuples(TEXTS, TEXTS, st.none() | st.floats(0, 1), st.booleans(), st.integers() | TEXTS | st.floats()),
    max_size=12,
)


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs=RUNS, least=st.none() | st.floats(0, 1), place=st.sampled_from(["inline", "beside"]))
def test_whatever_the_texts_each_line_is_one_example(
    tmp_path: Path, runs: list[Any], least: float | None, place: str
) -> None:
    """Every row is a line or left out; each prompt comes once, and no line agrees less than its like that was left out."""
    given_rows = [
        ExportRow(position, label, result(prompt, text, agreement=agreement, degraded=degraded))
        for position, (prompt, text, agreement, degraded, label) in enumerate(runs)
    ]
    fit = [
        row
        for row in given_rows
        if row.result.text.strip()
        and not row.result.degraded
        and (least is None or (row.agreed is not None and row.agreed >= least))
    ]
    options: dict[str, Any] = {"min_agreement": least, "provenance": place, "overwrite": True}
    if not fit:
        with pytest.raises(SetupError, match="no row is left"):
            write(tmp_path / "train.jsonl", given_rows, **options)
        return
    best: dict[bytes, ExportRow] = {}
    for row in fit:
        known = best.setdefault(digest(row.result.conversation), row)
        if (-1 if known.agreed is None else known.agreed) < (-1 if row.agreed is None else row.agreed):
            best[digest(row.result.conversation)] = row
    made = write(tmp_path / "train.jsonl", given_rows, **options)
    found = lines(made.path)
    origins = [line["provenance"] for line in found] if made.provenance is None else lines(made.provenance)
    assert [origin["row"] for origin in origins] == sorted(row.position for row in best.values())
    assert made.n_lines == len(found) == made.n_rows - sum(made.left_out.values())
    half = re.compile("[\ud800-\udfff]")
    for line, origin in zip(found, origins, strict=True):
        row = given_rows[origin["row"]]
        turns = [row.result.conversation[0].content, row.result.text]
        assert [turn["content"] for turn in line["messages"]] == [half.sub("\ufffd", text) for text in turns]


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(ratings=st.lists(st.lists(st.none() | st.integers(1, 10), min_size=1, max_size=5), min_size=1, max_size=4))
def test_a_preferred_answer_is_always_rated_higher(tmp_path: Path, ratings: list[list[int | None]]) -> None:
    """Each answer that is rated lower than the winner is rejected once, and no other."""
    results = [judged(f"{number}?", dict(zip("abcde", row, strict=False))) for number, row in enumerate(ratings)]
    lower = [
        (f"{number}?", f"The answer of {name}.")
        for number, row in enumerate(ratings)
        for name, score in zip("abcde", row, strict=False)
        if score is not None and score < max(one for one in row if one is not None)
    ]
    options: dict[str, Any] = {"pipeline": "judge", "format": "preference", "overwrite": True}
    if not lower:
        with pytest.raises(SetupError, match="without a preference"):
            write(tmp_path / "train.jsonl", results, **options)
        return
    made = write(tmp_path / "train.jsonl", results, **options)
    assert [(line["prompt"][0]["content"], line["rejected"][0]["content"]) for line in lines(made.path)] == lower
