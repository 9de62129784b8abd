"""What goes out to a Batch API and what comes back, as bytes; and what the store keeps of batches."""

from __future__ import annotations

import email
import json
from email.policy import HTTP
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_nb.chat import Message, Request
from moa_nb.providers.batches import BATCH_APIS, BatchApi
from moa_nb.providers.wire import WIRES
from moa_nb.store import Store
from moa_nb.store.batches import BatchRow

KEY = "0123456789abcdef" * 2


@pytest.fixture(params=sorted(BATCH_APIS))
def api(request: pytest.FixtureRequest) -> BatchApi:
    """Each Batch API."""
    return BATCH_APIS[request.param]


@given(texts=st.lists(st.text(), min_size=1, max_size=4))
def test_requests_stand_in_a_batch_as_they_go_out_live(texts: list[str]) -> None:
    """Whatever the words are, lines are lines of JSON, and each holds its request's own body."""
    for name, api in BATCH_APIS.items():
        written = [WIRES[name].body(Request("lab:m", (Message("user", text),)), "m") for text in texts]
        lines = [api.line(f"{place:032x}", body) for place, body in enumerate(written)]
        assert all(b"\n" not in line for line in lines)
        if api.upload is not None:
            post = api.upload(lines)
            form = email.message_from_bytes(
                b"Content-Type: " + post.content_type.encode() + b"\r\n\r\n" + post.body, policy=HTTP
            )
            purpose, file = form.iter_parts()  # type: ignore[attr-defined]  # a form has parts
            assert purpose.get_payload() == "batch"
            assert file.get_filename() == "moa-nb.jsonl"
            found = [json.loads(line) for line in post.body.split(b"\r\n\r\n")[2].splitlines() if line[:1] == b"{"]
            assert [one["body"] for one in found] == [json.loads(body) for body in written]
            assert {(one["method"], one["url"]) for one in found} == {("POST", "/v1/chat/completions")}
        else:
            found = json.loads(api.create(lines, "", "mark").body)["requests"]
            assert [one["params"] for one in found] == [json.loads(body) for body in written]
        assert [one["custom_id"] for one in found] == [f"{place:032x}" for place in range(len(texts))]


def test_openai_says_how_a_batch_stands() -> None:
    """The mark comes back in the metadata; results are in two files; a batch that failed says why."""
    state = BATCH_APIS["openai"].state
    said = {"id": "batch_1", "created_at": 1_700_000_000, "metadata": {"moa_nb": "m"}, "request_counts": {"total": 3}}
    known = state({**said, "status": "in_progress"})
    assert (known.id, known.mark, known.n_requests, known.is_over, known.paths) == ("batch_1", "m", 3, False, ())
    done = state({**said, "status": "completed", "output_file_id": "f1", "error_file_id": "f2"})
    assert (done.is_over, done.paths, done.refusal) == (True, ("/files/f1/content", "/files/f2/content"), None)
    assert state({**said, "status": "expired", "metadata": None}).mark == ""
    for code, status in (("token_limit_exceeded", 429), ("model_not_found", 400)):
        failed = state({**said, "status": "failed", "errors": {"data": [{"code": code, "message": "why"}]}})
        assert failed.refusal is not None
        assert failed.refusal.status == status
        assert WIRES["openai"].said(failed.refusal.body) == ("why", code)


def test_anthropic_says_how_a_batch_stands() -> None:
    """Its requests are counted from the first moment on, and its results have one address."""
    said = {
        "id": "msgbatch_1",
        "processing_status": "in_progress",
        "created_at": "2024-09-24T18:37:24.100435Z",
        "request_counts": {"processing": 2, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0},
    }
    state = BATCH_APIS["anthropic"].state(said)
    assert (state.n_requests, state.is_over, state.mark) == (3, False, "")
    assert state.created == pytest.approx(1_727_203_044.1, abs=0.1)
    ended = BATCH_APIS["anthropic"].state({**said, "processing_status": "ended"})
    assert (ended.is_over, ended.paths) == (True, ("/messages/batches/msgbatch_1/results",))


def test_what_is_no_batch_is_an_error(api: BatchApi) -> None:
    """A record without an id is refused, whatever else it is."""
    for said in ({}, [], None, {"id": None}):
        with pytest.raises(ValueError, match="no batch"):
            api.state(said)


@pytest.mark.parametrize(
    ("name", "result", "status", "words"),
    [
        ("openai", {"response": {"status_code": 200, "body": {"a": 1}}, "error": None}, 200, None),
        ("openai", {"response": {"status_code": 400, "body": {"error": {"message": "no"}}}}, 400, "no"),
        ("openai", {"response": None, "error": {"code": "batch_expired", "message": "late"}}, None, None),
        ("openai", {"response": None, "error": {"code": "batch_cancelled", "message": "late"}}, None, None),
        ("openai", {"response": None, "error": {"code": "odd", "message": "broken"}}, 500, "broken"),
        ("anthropic", {"result": {"type": "succeeded", "message": {"a": 1}}}, 200, None),
        ("anthropic", {"result": {"type": "expired"}}, None, None),
        ("anthropic", {"result": {"type": "canceled"}}, None, None),
        (
            "anthropic",
            {"result": {"type": "errored", "error": {"type": "overloaded_error", "message": "busy"}}},
            529,
            "busy",
        ),
        (
            "anthropic",
            {"result": {"type": "errored", "error": {"error": {"type": "invalid_request", "message": "no"}}}},
            400,
            "no",
        ),
    ],
)
def test_a_result_is_what_it_would_have_been_live(
    name: str, result: dict[str, object], status: int | None, words: str | None
) -> None:
    """Each line is an answer with the status that it would have had, or no answer at all."""
    custom_id, answer = BATCH_APIS[name].result(json.dumps({"custom_id": KEY, **result}).encode())
    assert custom_id == KEY
    assert (None if answer is None else answer.status) == status
    if answer is not None and words is not None:
        assert WIRES[name].said(answer.body)[0] == words


def test_lists_go_on(api: BatchApi) -> None:
    """The next page begins behind the last batch of the one before."""
    assert api.next_page("").startswith(f"{api.path}?limit=")
    assert api.next_page("b/1").endswith(("after=b%2F1", "after_id=b%2F1"))


@given(st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16)), max_size=5))
def test_a_store_keeps_what_is_under_way(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[bytes, bytes]]
) -> None:
    """An open row comes back as it was, in another process too; a closed one is known by its id alone."""
    path = tmp_path_factory.mktemp("store") / "store.sqlite"
    row = BatchRow("mark", 1.0, 2.0, "lab:m", None, tuple(keys))
    store = Store(path)
    assert store.add_batch(row)
    store.close()
    again = Store(path)
    assert again.open_batches() == [row]
    assert again.batch_ids() == frozenset()
    assert again.give_batch_id("mark", "b1")
    found = again.batch("mark")
    assert found is not None
    assert found.batch == "b1"
    assert again.close_batch("mark")
    assert (again.open_batches(), again.batch("mark"), again.batch_ids()) == ([], None, frozenset({"b1"}))
    again.close()


def test_a_store_in_memory_keeps_no_batches() -> None:
    """What this process alone knows is lost with it: nothing is paid for on that ground."""
    store = Store(None)
    assert store.add_batch(BatchRow("mark", 1.0, 2.0, "lab:m", None, ())) is None
    store.close()


def test_a_request_is_in_one_open_batch(tmp_path: Path) -> None:
    """Of two processes that have the same calls the second one is told, whichever is the second."""
    one, other = Store(tmp_path / "store.sqlite"), Store(tmp_path / "store.sqlite")
    keys = tuple((bytes([number]) * 16, bytes([number]) * 16) for number in range(4))
    assert one.add_batch(BatchRow("first", 1.0, 2.0, "lab:m", None, keys[:3])) is True
    assert other.add_batch(BatchRow("second", 1.0, 2.0, "lab:m", None, keys[2:])) is False
    assert one.close_batch("first")
    assert other.add_batch(BatchRow("second", 1.0, 2.0, "lab:m", None, keys[2:])) is True
    assert [row.mark for row in one.open_batches()] == ["second"]
    one.close()
    other.close()


def test_old_rows_are_forgotten(tmp_path: Path) -> None:
    """A batch whose results no service has any more leaves when the next one comes."""
    store = Store(tmp_path / "store.sqlite")
    for mark, day in (("old", 1), ("new", 60)):
        store.add_batch(BatchRow(mark, day * 86_400.0, day * 86_400.0, "lab:m", mark, ()))
    assert [row.mark for row in store.open_batches()] == ["new"]
    store.close()
