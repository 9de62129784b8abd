"""Gemini's generateContent: the model stands in the address, turns and answers are made of parts.

Pure: a ``Request`` becomes the bytes of a body, bytes become a ``Completion``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from moa_nb.chat import Completion, Request, Usage
from moa_nb.providers import openai_chat, structured
from moa_nb.providers.shared import count, dumps, loads, loads_all, name, page, table, temperature, turns
from moa_nb.providers.spelling import SYSTEM
from moa_nb.providers.structured import SCHEMA, generation_config

__all__ = [
    "Stream",
    "body",
    "headers",
    "models",
    "next_page",
    "parse",
    "path",
    "refused",
    "retry_after",
    "said",
    "spelt",
    "streamed",
]

_ROLES = {"user": "user", "assistant": "model"}

_FINISHED = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"), "content_filter"),
}
"""Reasons to stop, in our words; others stay as they are, in small letters."""

_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")


def headers(key: str | None, header: str | None = None) -> dict[str, str]:
    """Return the header that carries the key."""
    return {header or "x-goog-api-key": key} if key else {}


def path(model: str, *, streamed: bool) -> str:
    """Return where ``model`` is asked, below the provider's ``base_url``.

    >>> path("gemini-2.5-flash", streamed=False)
    '/models/gemini-2.5-flash:generateContent'
    """
    # A tuned model has its own folder: tunedModels/mine.
    place = model if "/" in model else f"models/{model}"
    return f"/{quote(place)}:{'streamGenerateContent?alt=sse' if streamed else 'generateContent'}"


def body(request: Request, model: str) -> bytes:  # noqa: ARG001 - as the other formats, which name it in the body
    """Return the request's body; equal requests give equal bytes.

    An extra field that is a table, such as ``generationConfig``, is added to what is there.

    Raises:
        TypeError: an extra field that is not JSON.
    """
    sampling, form = request.sampling, generation_config(request)
    fields: dict[str, Any] = {"generationConfig": form} if form else {}
    system = [message.content for message in request.messages if message.role == "system"]
    if system:
        fields["systemInstruction"] = {"parts": [{"text": "\n\n".join(system)}]}
    fields["contents"] = [{"role": _ROLES[role], "parts": [{"text": text}]} for role, text in turns(request.messages)]
    asked = {
        "temperature": None if sampling.temperature is None else temperature(sampling.temperature),
        "maxOutputTokens": sampling.max_tokens,
        "topP": sampling.top_p,
        "seed": sampling.seed,
        "stopSequences": sampling.stop or None,
    }
    config = form | {field: value for field, value in asked.items() if value is not None}
    if config:
        fields["generationConfig"] = config
    for field, value in sampling.extra:
        known = fields.get(field)
        fields[field] = {**known, **value} if isinstance(known, dict) and isinstance(value, Mapping) else value
    return dumps(fields)


def streamed(body: bytes) -> bytes:
    """Return the same body: the address asks for the stream."""
    return body


def parse(data: bytes) -> Completion:
    """Return the completion of a whole answer; a blocked prompt is one without text.

    Raises:
        ValueError: it is not an answer.
    """
    answer = loads(data)
    whole = Stream()
    # Where nobody asked for server-sent events, a stream is one list.
    for event in answer if isinstance(answer, list) else [answer]:
        whole.take(event)
    if not whole.has_answered:
        msg = "no candidates in the answer"
        raise ValueError(msg)
    return whole.completion()


class Stream:
    """Collects the events of a streamed answer, each of which is shaped like a whole one.

    ``feed`` returns the new piece of text, ``completion`` what has come together.
    """

    is_over = False
    """Nothing in this format says that nothing more comes."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._finish: str | None = None
        self._has_call = False
        self._note: str | None = None
        self._usage: dict[str, Any] = {}
        self._model = ""
        self.has_answered = False
        """Whether there was a candidate, or a reason why there is none."""
        self.error: bytes | None = None
        """An error that came in the middle of the stream, as ``said`` reads it."""

    def feed(self, events: Sequence[bytes]) -> str:
        """Return the text that these events add; empty where they add none.

        Raises:
            ValueError: they are not JSON.
        """
        return "".join(map(self.take, loads_all(events)))

    def take(self, event: Any) -> str:
        """Return the text that one event adds, already read."""
        event = table(event)
        if event.get("error"):
            if not self.is_whole:
                self.error = orjson.dumps(event)
            return ""
        self._model = self._model or name(event.get("modelVersion"))
        self._usage.update(table(event.get("usageMetadata")))
        blocked = table(event.get("promptFeedback"))
        if blocked.get("blockReason"):
            self.has_answered = True
            self._finish = "content_filter"
            why = name(blocked.get("blockReasonMessage"))
            self._note = f"the service blocked the prompt ({blocked['blockReason']})" + (f": {why}" if why else "")
        candidates = event.get("candidates")
        if not isinstance(candidates, list) or not candidates:
            return ""
        self.has_answered = True
        return self._add(table(candidates[0]))

    def _add(self, candidate: dict[str, Any]) -> str:
        added: list[str] = []
        for part in map(table, table(candidate.get("content")).get("parts") or ()):
            text = name(part.get("text"))
            self._has_call = self._has_call or "functionCall" in part
            if text:
                (self._thoughts if part.get("thought") is True else added).append(text)
        self._texts += added
        reason = name(candidate.get("finishReason"))
        if reason:
            self._finish = _FINISHED.get(reason, reason.lower())
        return "".join(added)

    @property
    def has_begun(self) -> bool:
        """Whether there is some of the answer already."""
        return bool(self._texts or self._thoughts)

    @property
    def is_whole(self) -> bool:
        """Whether the service said that the answer is finished."""
        return self._finish is not None

    def completion(self) -> Completion:
        """Return what has come together."""
        text = "".join(self._texts)
        called = self._has_call and not text and self._finish == "stop"
        return Completion(
            text=text,
            reasoning="".join(self._thoughts) or None,
            finish_reason="tool_calls" if called else self._finish,
            usage=_usage(self._usage),
            model=self._model,
            note=self._note,
        )


def said(data: bytes) -> tuple[str, str]:
    """Return the service's own error message and its most telling code; uncut, since it may hold a key.

    >>> said(b'{"error": {"code": 404, "message": "no such model", "status": "NOT_FOUND"}}')
    ('no such model', 'NOT_FOUND')
    """
    message, code = openai_chat.said(data)
    error = _error(data)
    reasons = [name(detail.get("reason")) for detail in _details(error)]
    return message, next(filter(None, reasons), name(error.get("status")) or code)


def retry_after(data: bytes) -> float | None:
    """Return the seconds that an error's body asks to wait; ``None`` if it says nothing.

    >>> retry_after(b'{"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "4.5s"}]}}')
    4.5
    """
    delays = [_SECONDS.fullmatch(name(detail.get("retryDelay"))) for detail in _details(_error(data))]
    return max((float(delay[1]) for delay in delays if delay), default=None)


def models(data: bytes) -> list[str]:
    """Return the models that can be asked, from what the service lists.

    Raises:
        ValueError: it is not a list of models.
    """
    listed = table(loads(data)).get("models")
    if not isinstance(listed, list):
        msg = "no list of models"
        raise ValueError(msg)  # noqa: TRY004 - as parse
    able = (
        entry
        for entry in map(table, listed)
        if "generateContent" in entry.get("supportedGenerationMethods", ["generateContent"])
    )
    return sorted(filter(None, {name(entry.get("name")).removeprefix("models/") for entry in able}))


def next_page(url: str, data: bytes) -> str | None:
    """Return where a list of models goes on; ``None`` at its end."""
    token = name(table(loads(data)).get("nextPageToken"))
    return page(url, "pageToken", token) if token else None


_INSTRUCTION_REFUSED = re.compile(r"(developer|system).{0,3}instruction is not", re.IGNORECASE)
"""Small open models there take no system's words, which the service calls a developer's."""


def refused(body: bytes, message: str) -> dict[str, str]:
    """Return the spelling without what ``message`` refuses of the body; empty if that cannot be had."""
    fields = table(loads(body))
    has_system = "systemInstruction" in fields and _INSTRUCTION_REFUSED.search(message)
    return {SYSTEM: ""} if has_system else structured.refused(fields, message)


def spelt(body: bytes, spelling: Mapping[str, str]) -> bytes:
    """Return the body in a model's own spelling: without the system's words apart, or with other parts of its config.

    >>> spelt(b'{"contents":[],"generationConfig":{"seed":1,"topP":1}}', {"seed": ""})
    b'{"contents":[],"generationConfig":{"topP":1}}'
    """
    fields = table(loads(body))
    if SCHEMA in spelling:
        fields = structured.weakened(fields, spelling[SCHEMA])
    contents, instruction = fields.get("contents"), table(fields.get("systemInstruction"))
    if SYSTEM in spelling and instruction and contents:
        first = {**contents[0], "parts": [*instruction["parts"], *contents[0]["parts"]]}
        del fields["systemInstruction"]
        fields["contents"] = [first, *contents[1:]]
    config = fields.get("generationConfig")
    if isinstance(config, dict):
        fields["generationConfig"] = {field: value for field, value in config.items() if spelling.get(field) != ""}
    return dumps(fields)


def _error(data: bytes) -> dict[str, Any]:
    try:
        answer = loads(data)
    except ValueError:
        return {}
    if isinstance(answer, list) and answer:
        answer = answer[0]
    return table(table(answer).get("error"))


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [table(detail) for detail in details] if isinstance(details, list) else []


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt, tools = count(usage.get("promptTokenCount")), count(usage.get("toolUsePromptTokenCount"))
    written, thoughts = count(usage.get("candidatesTokenCount")), count(usage.get("thoughtsTokenCount"))
    return Usage(
        prompt_tokens=None if prompt is None else prompt + (tools or 0),
        # Thoughts are billed as the answer is, but counted apart from it.
        completion_tokens=None if written is None and thoughts is None else (written or 0) + (thoughts or 0),
        cached_prompt_tokens=count(usage.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
    )
