"""How far token estimates are off: against what services reported, and against the families' own vocabularies.

    python tests/benchmarks/token_error.py

The first table goes over the recorded exchanges: every prompt whose whole text is in the request (no tools,
schemas, cached contents or thinking settings, which add tokens that nobody sees) and every answer that came
whole, less the reasoning that was reported apart. What no text shows stays in: the end marks of answers of a few
tokens, a service's own preamble. ``family`` is the estimate for the model, ``rough`` the one
that knows no tokenizer, ``most below`` the worst underestimate. The second table is what matters for texts of CJK and
code, of which the exchanges have none: the rough estimate against the vocabulary, on blocks of code of the
recorded conversations and on a few sentences written for it. The third is milliseconds per KB.
"""

from __future__ import annotations

import gzip
import json
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moa_nb.chat import Completion, Message
from moa_nb.providers.wire import WIRES
from moa_nb.tokens import count_prompt_tokens, count_tokens
from moa_nb.tokens.families import family_of

DATA = Path(__file__).parents[3] / "shared" / "data"
API_WIRES = {
    "chat_completions": "openai",
    "anthropic_messages": "anthropic",
    "gemini_generate": "gemini",
    "gemini_stream": "gemini",
}
UNSEEN = {
    "tools",
    "response_format",
    "output_format",
    "cachedContent",
    "thinking",
    "reasoning",
    "reasoning_effort",
    "n",
}
"""Fields of a request that add tokens which no text shows."""
LONG = 50
"""Tokens from which a share says something: one token off is a fifth of five."""
WRITTEN = {
    "Chinese": "电池能用两天，价格也不贵，我很满意。不过说明书写得不清楚，客服的回答也很慢，希望以后能改进。",
    "Japanese": "この製品はとても使いやすいです。電池は二日間もちますが、説明書が分かりにくいので改善してほしいと思います。",
    "Korean": "배터리는 이틀 동안 지속되고 가격도 비싸지 않아서 만족합니다. 하지만 설명서가 이해하기 어렵습니다.",
}
MODELS = {
    "o200k": "openai:gpt-4o",
    "cl100k": "openai:gpt-4",
    "claude": "anthropic:claude-sonnet-4-5",
    "gemini": "gemini:gemini-2.5-flash",
    "llama 3": "lab:llama-3.3-70b",
    "qwen": "lab:qwen3-8b",
    "deepseek": "lab:deepseek-v3",
    "mistral": "lab:mistral-small-latest",
}


@dataclass(frozen=True)
class Count:
    """One text that a service counted."""

    family: str
    is_prompt: bool
    reported: int
    by_family: int
    rough: int

    def error(self, estimate: int) -> float:
        """Return how far an estimate is off, as a share of what was reported."""
        return (estimate - self.reported) / self.reported


# The recorded exchanges -------------------------------------------------------------------------


def exchanges() -> Iterator[tuple[dict[str, Any], Completion]]:
    """Yield the request's body and what came back, of every exchange that has an answer."""
    for file in sorted((DATA / "http_exchanges" / "exchanges").glob("*.json")):
        recorded = json.loads(file.read_text("utf-8"))
        body = recorded["response"]["body_text"].encode()
        if recorded["status"] == 200:
            try:
                yield recorded["request"]["body"], read(WIRES[API_WIRES[recorded["api"]]], body, recorded["stream"])
            except ValueError:
                continue  # an error under a good status


def read(wire: Any, body: bytes, is_streamed: bool) -> Completion:
    """Return what a recorded body says."""
    if not is_streamed:
        return wire.parse(body)
    stream = wire.new_stream()
    stream.feed([line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")])
    return stream.completion()


def messages(body: dict[str, Any]) -> list[Message] | None:
    """Return the messages of a recorded request; ``None`` where there is more than text."""
    system = body.get("system") or body.get("systemInstruction", {}).get("parts")
    turns = [("system", system)] if system else []
    turns += [(turn["role"], turn["content"]) for turn in body.get("messages", ())]
    turns += [(turn["role"], turn["parts"]) for turn in body.get("contents", ())]
    known = []
    for role, content in turns:
        parts = [{"text": content}] if isinstance(content, str) else content
        if not all(isinstance(part.get("text"), str) for part in parts):
            return None
        known.append(Message(role, "".join(part["text"] for part in parts)))
    return known


def counts() -> Iterator[Count]:
    """Yield every prompt and answer that a service counted and whose text is known."""
    for body, completion in exchanges():
        usage = completion.usage
        # Its name alone decides: who served it is not part of what is compared.
        model = f"recorded:{completion.model or body['model']}"
        family = family_of(model).name
        prompt = None if UNSEEN & {*body, *body.get("generationConfig", ())} else messages(body)
        if prompt and usage.prompt_tokens:
            rough = count_prompt_tokens(prompt)
            yield Count(family, True, usage.prompt_tokens, count_prompt_tokens(prompt, model), rough)
        is_apart = usage.reasoning_tokens is not None or not completion.reasoning
        written = (usage.completion_tokens or 0) - (usage.reasoning_tokens or 0)
        if completion.text and is_apart and written > 0 and body.get("n", 1) == 1:
            yield Count(family, False, written, count_tokens(completion.text, model), count_tokens(completion.text))


# Texts that no service counted ------------------------------------------------------------------


def code() -> str:
    """Return the blocks of code in the recorded answers."""
    with gzip.open(DATA / "mt_bench" / "answers_gpt-4.jsonl.gz", "rt", encoding="utf-8") as lines:
        turns = [turn for line in lines for choice in json.loads(line)["choices"] for turn in choice["turns"]]
    return "\n".join(block for turn in turns for block in re.findall(r"```\w*\n(.*?)```", turn, re.DOTALL))


def prose() -> list[str]:
    """Return the abstracts of the recorded papers."""
    with gzip.open(DATA / "text_tables" / "scitldr_test.csv.gz", "rt", encoding="utf-8") as lines:
        return lines.read().splitlines()[1:]


# The tables -------------------------------------------------------------------------------------


def share(errors: Iterable[float]) -> str:
    """Return the median and the 90th percentile of the sizes of errors, and the largest one downwards."""
    found = list(errors)
    sizes = sorted(map(abs, found))
    at = min(len(sizes) - 1, int(0.9 * len(sizes)))
    return f"{statistics.median(sizes):5.0%} | {sizes[at]:5.0%} | {abs(min(*found, 0)):5.0%}" if found else "| |"


def print_reported(found: list[Count], title: str) -> None:
    """Print the errors per family of what services counted."""
    print(f"\n{title}\n")
    print("| family | n | median | p90 | most below | rough: median | p90 | most below |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for family in [*sorted({one.family for one in found}), "all"]:
        some = [one for one in found if family in {one.family, "all"}]
        by_family, rough = (share(one.error(n) for one, n in pairs(some, way)) for way in ("by_family", "rough"))
        print(f"| {family} | {len(some)} | {by_family} | {rough} |")


def pairs(found: list[Count], way: str) -> list[tuple[Count, int]]:
    """Return each count with one of its estimates."""
    return [(one, getattr(one, way)) for one in found]


def print_kinds() -> None:
    """Print the rough count as a multiple of each vocabulary's."""
    texts = {"prose": "\n".join(prose()[:200]), "code": code(), **WRITTEN}
    print("\nThe rough count over the family's\n")
    print(f"| text | {' | '.join(MODELS)} |")
    print("|---|" + "--:|" * len(MODELS))
    for kind, text in texts.items():
        rough = count_tokens(text)
        print(f"| {kind} | {' | '.join(f'{rough / count_tokens(text, model):.2f}' for model in MODELS.values())} |")


def print_speed() -> None:
    """Print how long a count takes: of texts never seen, and of words that were met before."""
    texts = prose()
    print("\nMilliseconds per KB of prose\n\n| family | first | again |\n|---|--:|--:|")
    for name, model in [("rough", None), *MODELS.items()]:
        count_tokens("loads the vocabulary", model)
        first = per_kb(texts, lambda text, model=model: count_tokens(text, model))
        again = per_kb(texts, lambda text, model=model: count_tokens(text, model))
        print(f"| {name} | {first:.3f} | {again:.3f} |")


def per_kb(texts: list[str], count: Callable[[str], int]) -> float:
    """Return the milliseconds that a KB takes."""
    started = time.perf_counter()
    for text in texts:
        count(text)
    return (time.perf_counter() - started) * 1000 / (sum(map(len, texts)) / 1024)


def main() -> None:
    """Print the tables."""
    found = list(counts())
    print_reported([one for one in found if one.is_prompt], "Prompts")
    print_reported([one for one in found if not one.is_prompt], "Answers")
    print_reported([one for one in found if one.reported >= LONG], f"Either, of {LONG} tokens and more")
    print_kinds()
    print_speed()


if __name__ == "__main__":
    main()
