"""litellm in HTTP's place, for what is no known service: Bedrock, Vertex and so on. An optional extra.

litellm takes and gives chat completions, so a request's body is its arguments, and what it returns or raises is
read as the answer of a service is. It finds keys and regions in the environment, by names of its own. It is not
asked to repeat anything: when to ask again is decided in one place, and that is not here.
"""

from __future__ import annotations

import asyncio
import functools
import re
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from moa_nb.chat import Usage
from moa_nb.errors import SetupError
from moa_nb.providers.secrecy import without
from moa_nb.providers.shared import Answer, dollars, dumps, loads, name, table
from moa_nb.settings import environment

__all__ = ["BRIDGE", "LiteLLM", "rule"]

_CODES = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_filter",
    "UnsupportedParamsError": "unsupported_parameter",
}
"""Its exceptions that say more than their status."""

_UNKNOWN = re.compile(r"LLM Provider NOT provided", re.IGNORECASE)
_PREFIX = re.compile(r"^(?:litellm\.)?(?:\w+(?:Error|Exception)(?: - |: ?|(?= )) ?|litellm\.)+")


class LiteLLM:
    """Asks litellm; what it raises becomes an answer with a status."""

    async def get(self, url: str, headers: Mapping[str, str], seconds: float) -> Answer:  # noqa: ARG002 - as HTTP
        """Return the models that it knows for the keys in the environment."""
        found = await asyncio.to_thread(_library().get_valid_models)
        return Answer(200, {}, dumps({"data": [{"id": model} for model in found]}))

    async def post(
        self,
        url: str,  # noqa: ARG002 - as HTTP
        headers: Mapping[str, str],  # noqa: ARG002 - as HTTP
        body: bytes,
        seconds: float,
    ) -> Answer:
        """Return the answer, whatever its status.

        Raises:
            SetupError: litellm is not installed.
        """
        library, asked = _library(), table(loads(body))
        try:
            async with asyncio.timeout(seconds):
                response = await library.acompletion(**_arguments(asked, seconds))
        except Exception as error:  # anything: it passes on what a service's own library raises
            return _refusal(error, asked)
        answer = response.model_dump(warnings=False)
        cost = dollars(table(getattr(response, "_hidden_params", None)).get("response_cost"))
        if cost:
            answer["usage"] = {**table(answer.get("usage")), "cost": cost}
        return Answer(200, {}, dumps(answer))

    async def stream(
        self,
        url: str,  # noqa: ARG002 - as HTTP
        headers: Mapping[str, str],  # noqa: ARG002 - as HTTP
        body: bytes,
        seconds: float,
        on_events: Callable[[list[bytes]], bool],
    ) -> Answer:
        """Return the answer: after a stream, whose events went to ``on_events``, without its body.

        Raises:
            SetupError: litellm is not installed.
        """
        library, asked = _library(), table(loads(body))
        has_begun = False
        try:
            async with asyncio.timeout(seconds):
                async for chunk in await library.acompletion(**_arguments(asked, seconds)):
                    event = dumps(chunk.model_dump(warnings=False))
                    has_begun = True
                    if on_events([event]):
                        break
        except Exception as error:  # as post
            refusal = _refusal(error, asked)
            if not has_begun:
                return refusal
            on_events([refusal.body])  # an error in the middle of the stream
        return Answer(200, {}, b"", is_stream=True)


BRIDGE = LiteLLM()
"""The one that the formats name."""


@functools.cache
def _library() -> Any:
    """Return litellm, made quiet.

    Raises:
        SetupError: it is not installed.
    """
    if find_spec("litellm") is None:
        msg = "models named litellm:... need litellm: pip install 'moa-nb[litellm]'"
        raise SetupError(msg)
    # Without this it fetches prices from a code host when it is imported.
    environment.preset("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    warnings.filterwarnings("ignore", message=r".*`ReadOnly` qualifier")  # about its own types
    import litellm

    litellm.suppress_debug_info = True  # it prints to standard output
    return litellm


def _arguments(asked: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {"timeout": seconds, **asked, "num_retries": 0, "max_retries": 0}


def _refusal(error: Exception, asked: Mapping[str, Any]) -> Answer:
    """Return what litellm raised as a service's answer, without any key."""
    if isinstance(error, TimeoutError):
        return _error(408, "no whole answer in time", "timeout")
    kind = type(error).__name__
    message = _PREFIX.sub("", " ".join(str(getattr(error, "message", error)).split())) or kind
    if _UNKNOWN.search(message):
        # Its own words go on to speak of its Python function.
        message = "litellm knows no service of that name: write SERVICE/MODEL, as in bedrock/MODEL or vertex_ai/MODEL"
        return _error(404, message, "model_not_found")
    status = str(getattr(error, "status_code", None))
    code = _CODES.get(kind) or name(getattr(error, "code", None))
    headers = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    known = dict(headers or {})
    shown = without(message, _secrets(asked))
    if status == "401":
        missing = table(_library().validate_environment(name(asked.get("model")))).get("missing_keys")
        if missing:
            shown += f" (not set: {', '.join(missing)})"
    return _error(int(status) if status.isdigit() else 500, shown, code, known)


def _error(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> Answer:
    kept = {name: value for name, value in (headers or {}).items() if "retry-after" in name.lower()}
    return Answer(status, kept, dumps({"error": {"message": message, "code": code}}))


def _secrets(asked: Mapping[str, Any]) -> list[str]:
    """Return the values of the request and of the environment whose names say that they are secret."""
    return [*environment.secrets(), *environment.secret_among(asked)]


def rule(model: str) -> Callable[[Usage], float] | None:
    """Return what turns a usage into dollars, by litellm's own list; ``None`` where that has no price.

    Raises:
        SetupError: litellm is not installed.
    """
    library = _library()

    def of(usage: Usage) -> float:
        dollars_in, dollars_out = library.cost_per_token(
            model=model,
            prompt_tokens=usage.prompt_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
            cache_read_input_tokens=usage.cached_prompt_tokens or 0,
            cache_creation_input_tokens=usage.cache_write_tokens or 0,
        )
        return float(dollars_in + dollars_out)

    try:
        # A model that it lists without a price comes out as free, which nobody can know.
        return of if of(Usage(1000, 1000)) else None
    except Exception:  # whatever it raises for a model that it does not list
        return None
