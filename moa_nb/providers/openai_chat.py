"""OpenAI chat completions, the format that most services and local servers speak.

Pure: a ``Request`` becomes the bytes of a body, bytes become a ``Completion``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from moa_nb.chat import Completion, Request, Usage
from moa_nb.providers.shared import count, dollars, dumps, loads, loads_all, name, table, temperature
from moa_nb.providers.structured import response_format

__all__ = ["PATH", "Stream", "body", "parse", "said", "status", "streamed"]

PATH = "/chat/completions"
"""Below the provider's ``base_url``."""

_THINK = re.compile(r"\s*<think>(.*?)(?:</think>\s*|\Z)", re.DOTALL)
"""Thoughts before the answer; without an end where the answer was cut off while the model thought."""

_DONE = b"[DONE]"

_FINISHED = {
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("max_tokens", "model_length"), "length"),
    "function_call": "tool_calls",
}
"""Reasons to stop that some services spell otherwise, in our words; others stay as they are."""

_FAILED = frozenset({"error", "insufficient_system_resource"})
"""Reasons to stop that are none: the model's own service broke off."""

_REFUSED = "refusal"
"""Our reason where the answer stands in the field of that name, whatever the service says."""


def body(request: Request, model: str) -> bytes:
    """Return the request's body for ``model``; equal requests give equal bytes.

    Raises:
        TypeError: an extra field that is not JSON.
    """
    sampling = request.sampling
    fields: dict[str, Any] = {"model": model, **response_format(request)}
    fields["messages"] = [message.to_dict() for message in request.messages]
    if sampling.temperature is not None:
        fields["temperature"] = temperature(sampling.temperature)
    if sampling.max_tokens is not None:
        fields["max_tokens"] = sampling.max_tokens
    if sampling.top_p is not None:
        fields["top_p"] = sampling.top_p
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    if sampling.stop:
        fields["stop"] = sampling.stop
    fields.update(sampling.extra)
    return dumps(fields)


def streamed(body: bytes) -> bytes:
    """Return the same body, asking for a stream with its usage at the end."""
    return body[:-1] + b',"stream":true,"stream_options":{"include_usage":true}}'


def parse(data: bytes) -> Completion:
    """Return the completion of a whole answer.

    Raises:
        ValueError: it is not a chat completion.
    """
    answer = loads(data)
    try:
        choice = answer["choices"][0]
        if choice.get("error") or choice.get("finish_reason") in _FAILED:
            msg = "an error in place of an answer"
            raise ValueError(msg)
        text, refusal, thought = _pieces(choice.get("message") or {})
        return _completion(
            text=text or refusal,
            reasoning=thought,
            finish_reason=_REFUSED if refusal and not text else choice.get("finish_reason"),
            usage=answer.get("usage"),
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
        self._is_refusal = False
        self._finish: str | None = None
        self._usage: Any = None
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
        return "".join(map(self._take, loads_all(data)))

    def _take(self, event: Any) -> str:
        if not isinstance(event, dict):
            return ""
        try:
            self._model = self._model or event.get("model")
            usage = event.get("usage") or ("x_groq" in event and table(event["x_groq"]).get("usage"))
            if usage:
                self._usage = usage
            added = ""
            for choice in event.get("choices") or ():
                # Others are further answers to the same question.
                if not choice.get("index"):
                    added += self._add(choice)
            # After the end it says why the answer ended, which the reason to stop does too.
            if event.get("error") and not self.is_whole:
                self.error = orjson.dumps(event)
        except (KeyError, TypeError, AttributeError):
            msg = "not an event of a chat completion"
            raise ValueError(msg) from None
        return added

    def _add(self, choice: dict[str, Any]) -> str:
        # A message beside the delta is the text so far.
        text, refusal, thought = _pieces((choice["delta"] if "delta" in choice else choice.get("message")) or {})
        added = text or refusal
        if added:
            self._texts.append(added)
        if refusal and not text:
            self._is_refusal = True
        if thought:
            self._thoughts.append(thought)
        reason = choice.get("finish_reason")
        if choice.get("error") or reason in _FAILED:
            self.error = orjson.dumps(choice if choice.get("error") else {"error": "the service broke off"})
        elif reason:
            self._finish = reason
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
            finish_reason=_REFUSED if self._is_refusal else self._finish,
            usage=self._usage,
            model=self._model,
        )


def said(data: bytes) -> tuple[str, str]:
    """Return the service's own error message and its code, from whatever it sent; uncut, since it may hold a key.

    >>> said(b'{"error": {"message": "no such model", "code": "model_not_found"}}')
    ('no such model', 'model_not_found')
    """
    try:
        answer = loads(data)
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
    code = inner.get("code") or inner.get("type") or inner.get("status") or ""
    # A router says what the service behind it said, and whether it stopped the text itself.
    beside = table(inner.get("metadata"))
    if "flagged_input" in beside:
        code = "flagged_input"
    if name(beside.get("raw")):
        behind, its_code = said(beside["raw"].encode("utf-8", "replace"))
        message, code = f"{message}: {behind}", its_code or code
    return " ".join(message.split()), str(code)


def status(data: bytes) -> int | None:
    """Return the status that an error's body says itself; ``None`` if it says none.

    Some services send the error of another one as an answer that went well.

    >>> status(b'{"error": {"message": "flagged", "code": 403}}')
    403
    """
    try:
        answer = loads(data)
    except ValueError:
        return None
    code = table(table(answer[0] if isinstance(answer, list) and answer else answer).get("error")).get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _pieces(message: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the text, the refusal and the thoughts of a message or a delta.

    >>> _pieces({"content": [{"type": "thinking", "thinking": [{"text": "Hm."}]}, {"type": "text", "text": "Yes"}]})
    ('Yes', '', 'Hm.')
    """
    content, refusal = message.get("content"), message.get("refusal")
    thought = message.get("reasoning_content") or message.get("reasoning")
    if not refusal and not thought and isinstance(content, str):
        return content, "", ""  # nearly all deltas
    thoughts = _text(thought)
    if not thoughts and isinstance(content, list):
        thoughts = "".join(_text(table(part).get("thinking")) for part in content)
    return _text(content), _text(refusal), thoughts


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else name(table(part).get("text")) for part in content)
    return ""


def _completion(text: str, reasoning: str, finish_reason: Any, usage: Any, model: Any) -> Completion:
    if ">" in text and "think>" in text:  # one character is found ten times as fast
        thought, text = _without_thoughts(text)
        reasoning = reasoning or thought
    reason, reported = str(finish_reason) if finish_reason else None, table(usage)
    return Completion(
        text=text,
        reasoning=reasoning or None,
        finish_reason=_FINISHED.get(reason, reason) if reason else None,
        usage=_usage(reported),
        cost=_cost(reported),
        model=name(model),
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


_DETAILS = frozenset({"prompt_tokens_details", "completion_tokens_details", "prompt_cache_hit_tokens"})
"""Where a usage says what its tokens were."""


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt, written = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    if _DETAILS.isdisjoint(usage):
        return Usage(prompt, written)
    parts, details = table(usage.get("prompt_tokens_details")), table(usage.get("completion_tokens_details"))
    cached, thoughts = parts.get("cached_tokens"), count(details.get("reasoning_tokens"))
    if (
        prompt is not None
        and written is not None
        and thoughts
        and usage.get("total_tokens") == prompt + written + thoughts
    ):
        # Some services count thoughts apart from the answer; they are billed as it is.
        written += thoughts
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=written,
        cached_prompt_tokens=count(usage.get("prompt_cache_hit_tokens") if cached is None else cached),
        cache_write_tokens=count(parts.get("cache_write_tokens")),
        reasoning_tokens=thoughts,
    )


_TICKS = 1e10
"""Of a dollar, in which xAI counts."""

_COSTS = frozenset({"cost", "cost_in_usd_ticks"})
"""Where a usage says what it costs."""


def _cost(usage: Mapping[str, Any]) -> float | None:
    """Return the dollars that the service itself reports; ``None`` if it reports none.

    >>> _cost({"cost": {"total_cost": 0.005}}), _cost({"cost_in_usd_ticks": 37756000}), _cost({"prompt_tokens": 1})
    (0.005, 0.0037756, None)
    """
    if _COSTS.isdisjoint(usage):
        return None
    cost = usage.get("cost")
    if isinstance(cost, dict):  # Perplexity: with the fee of the search
        return dollars(cost.get("total_cost"))
    billed = dollars(cost)
    if billed is not None:
        if not usage.get("is_byok"):
            return billed
        # OpenRouter with one's own key of the service behind it, which bills apart.
        elsewhere = dollars(table(usage.get("cost_details")).get("upstream_inference_cost"))
        return None if elsewhere is None else billed + elsewhere
    ticks = count(usage.get("cost_in_usd_ticks"))
    return ticks / _TICKS if ticks else None  # others who sell these models report none for all
