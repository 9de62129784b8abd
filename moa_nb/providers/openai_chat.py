"""OpenAI chat completions, the format that most services and local servers speak.

Pure: a ``Request`` becomes the bytes of a body, bytes become a ``Completion``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import orjson

from moa_nb.chat import Completion, Request, Usage

__all__ = ["PATH", "Stream", "body", "parse", "said", "streamed"]

PATH = "/chat/completions"
"""Below the provider's ``base_url``."""

_COLD = 1e-4
"""Temperatures up to this are sent as exactly 0, as the reference implementation of MoA does."""

_THINK = re.compile(r"\s*<think>(.*?)(?:</think>\s*|\Z)", re.DOTALL)
"""Thoughts before the answer; without an end where the answer was cut off while the model thought."""

_DONE = b"[DONE]"


def body(request: Request, model: str) -> bytes:
    """Return the request's body for ``model``; equal requests give equal bytes.

    Raises:
        TypeError: an extra field that is not JSON.
    """
    sampling = request.sampling
    fields: dict[str, Any] = {"model": model, "messages": [message.to_dict() for message in request.messages]}
    if sampling.temperature is not None:
        fields["temperature"] = 0 if sampling.temperature <= _COLD else sampling.temperature
    if sampling.max_tokens is not None:
        fields["max_tokens"] = sampling.max_tokens
    if sampling.top_p is not None:
        fields["top_p"] = sampling.top_p
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    if sampling.stop:
        fields["stop"] = sampling.stop
    fields.update(sampling.extra)
    try:
        return orjson.dumps(fields)
    except TypeError:
        # A lone surrogate, as broken text columns have them: it cannot be sent, so it is replaced.
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def streamed(body: bytes) -> bytes:
    """Return the same body, asking for a stream with its usage at the end."""
    return body[:-1] + b',"stream":true,"stream_options":{"include_usage":true}}'


def parse(data: bytes) -> Completion:
    """Return the completion of a whole answer.

    Raises:
        ValueError: it is not a chat completion.
    """
    answer = _loads(data)
    try:
        choice = answer["choices"][0]
        message = choice.get("message") or {}
        return _completion(
            text=_text(message.get("content")) or _text(message.get("refusal")),
            reasoning=_text(message.get("reasoning_content") or message.get("reasoning")),
            finish_reason=choice.get("finish_reason"),
            usage=_usage(answer.get("usage")),
            model=answer.get("model"),
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        msg = "no choices in the answer"
        raise ValueError(msg) from None


class Stream:
    """Collects the events of a streamed answer.

    ``feed`` returns the new piece of text, ``completion`` what has come together.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._finish: str | None = None
        self._usage = Usage()
        self._model: str | None = None
        self.is_over = False
        """Whether the service said that nothing more comes."""
        self.error: bytes | None = None
        """An error that came in the middle of the stream, as ``said`` reads it."""

    def feed(self, events: Sequence[bytes]) -> str:
        """Return the text that these events add; empty where they add none.

        Raises:
            ValueError: they are not those of a chat completion.
        """
        data = [event for event in events if event != _DONE]
        self.is_over = self.is_over or len(data) < len(events)
        # One array is read faster than its events one by one.
        return "".join(map(self._take, _loads(b"[" + b",".join(data) + b"]")))

    def _take(self, event: Any) -> str:
        if not isinstance(event, dict):
            return ""
        if event.get("error"):
            self.error = orjson.dumps(event)
            return ""
        try:
            self._model = self._model or event.get("model")
            if event.get("usage"):
                self._usage = _usage(event["usage"])
            added = ""
            for choice in (event.get("choices") or ())[:1]:
                delta = choice.get("delta") or choice.get("message") or {}
                added = _text(delta.get("content")) or _text(delta.get("refusal"))
                if added:
                    self._texts.append(added)
                thought = _text(delta.get("reasoning_content") or delta.get("reasoning"))
                if thought:
                    self._thoughts.append(thought)
                self._finish = choice.get("finish_reason") or self._finish
        except (KeyError, TypeError, AttributeError):
            msg = "not an event of a chat completion"
            raise ValueError(msg) from None
        return added

    @property
    def has_begun(self) -> bool:
        """Whether there is some of the answer already."""
        return bool(self._texts or self._thoughts)

    @property
    def is_whole(self) -> bool:
        """Whether the service said that the answer is finished."""
        return self._finish is not None or self.is_over

    def completion(self) -> Completion:
        """Return what has come together."""
        return _completion(
            text="".join(self._texts),
            reasoning="".join(self._thoughts),
            finish_reason=self._finish,
            usage=self._usage,
            model=self._model,
        )


def said(data: bytes) -> tuple[str, str]:
    """Return the service's own error message and its code, from whatever it sent; uncut, since it may hold a key.

    >>> said(b'{"error": {"message": "no such model", "code": "model_not_found"}}')
    ('no such model', 'model_not_found')
    """
    try:
        answer = _loads(data)
    except ValueError:
        text = re.sub(r"<[^>]*>", " ", data[:20_000].decode("utf-8", "replace"))
        return " ".join(text.split()), ""
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return str(answer), ""
    inner = answer.get("error", answer)
    if isinstance(inner, str):
        return inner, str(answer.get("code") or answer.get("type") or "")
    if not isinstance(inner, dict):
        return str(inner), ""
    message = inner.get("message") or inner.get("detail") or inner.get("msg") or ""
    if not isinstance(message, str):
        message = orjson.dumps(message).decode()
    return " ".join(message.split()), str(inner.get("code") or inner.get("type") or inner.get("status") or "")


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Half of a surrogate pair, or bytes that are not UTF-8: what is left of the text is still an answer.
        lenient = json.loads(data.decode("utf-8", "replace"))
        return orjson.loads(json.dumps(lenient, ensure_ascii=False).encode("utf-8", "replace"))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _completion(text: str, reasoning: str, finish_reason: Any, usage: Usage, model: Any) -> Completion:
    if "think>" in text:
        thought, text = _without_thoughts(text)
        reasoning = reasoning or thought
    return Completion(
        text=text,
        reasoning=reasoning or None,
        finish_reason=str(finish_reason) if finish_reason else None,
        usage=usage,
        model=model if isinstance(model, str) else "",
    )


def _without_thoughts(text: str) -> tuple[str, str]:
    """Return what the model thought aloud before its answer, and the answer.

    >>> _without_thoughts("<think>Hm.</think>Yes")
    ('Hm.', 'Yes')
    """
    marked = _THINK.match(text)
    if marked:
        return marked[1].strip(), text[marked.end() :]
    # Some servers put the opening tag into the prompt, and it is missing here.
    thought, end, answer = text.partition("</think>")
    if end and "<think>" not in thought:
        return thought.strip(), answer.lstrip()
    return "", text


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    prompt, completion = _part(usage, "prompt_tokens_details"), _part(usage, "completion_tokens_details")
    cached = prompt.get("cached_tokens")
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_prompt_tokens=_count(usage.get("prompt_cache_hit_tokens") if cached is None else cached),
        reasoning_tokens=_count(completion.get("reasoning_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _part(usage: dict[str, Any], name: str) -> dict[str, Any]:
    part = usage.get(name)
    return part if isinstance(part, dict) else {}
