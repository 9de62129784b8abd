"""Token estimates: each family's own vocabulary, no harm from any text, and a rough count where there is none."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_nb import tokens
from moa_nb.chat import Message
from moa_nb.tokens import counting
from moa_nb.tokens.families import _FAMILIES, family_of

EXCHANGES = Path(__file__).parents[2] / "shared" / "data" / "http_exchanges" / "exchanges"

MODELS = {
    "gpt-oss": "cerebras:gpt-oss-120b",
    "openai": "openai:gpt-4.1-mini",
    "openai, before GPT-4o": "azure:gpt-35-turbo",
    "claude, from Opus 4.7": "anthropic:claude-opus-4-8",
    "claude": "openrouter:anthropic/claude-4.6-sonnet-20260217",
    "gemini": "gemini:gemini-2.5-flash",
    "llama 4": "groq:meta-llama/llama-4-scout-17b-16e-instruct",
    "llama 2": "ollama:llama2:7b",
    "llama 3.1": "fireworks:accounts/fireworks/models/llama-v3p1-8b-instruct",
    "sonar": "perplexity:sonar-pro",
    "llama 3": "groq:llama3-8b-8192",
    "qwen": "together:Qwen/Qwen2.5-72B-Instruct-Turbo",
    "deepseek": "deepseek:deepseek-chat",
    "mistral, before NeMo": "ollama:mistral:7b",
    "mistral": "mistral:ministral-3b-latest",
    "glm": "zai:glm-5.2",
    "kimi": "moonshot:kimi-k2",
    "phi": "ollama:phi4",
    "unknown": "lab:alpha",
    "no model": "offline:textrank",
}
"""A model of each family."""

ENDLESS = {
    "letters": "a" * 1_000_000,
    "blanks": " " * 1_000_000,
    "wide blanks": "\u3000" * 300_000,
    "vertical tabs": "\v" * 1_000_000,
    "line ends": "\r\n" * 500_000,
    "marks": "!" * 1_000_000,
    "accents": "e" + "\u0301" * 300_000,
    "one ideograph": "啊" * 300_000,
    "emoji": "👩‍👩‍👧" * 100_000,
}

any_text = st.text(st.characters(codec=None))


@pytest.fixture
def without_tokenizer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tokenizer package cannot be imported."""
    monkeypatch.setitem(sys.modules, "splintr", None)
    counting._encoder.cache_clear()
    yield
    counting._encoder.cache_clear()


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The benchmark that measures the error, as a module."""
    path = Path(__file__).with_name("benchmarks") / "token_error.py"
    spec = importlib.util.spec_from_file_location("token_error", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


# Families ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "model"), MODELS.items())
def test_a_model_counts_as_its_family(family: str, model: str) -> None:
    """The family is found in the model's name, whoever serves it."""
    assert family_of(model).name == family


def test_every_family_has_a_model_here() -> None:
    """No row of the data goes untested."""
    assert {family.name for family in _FAMILIES} <= {*MODELS}


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("anthropic:my-deployment", "claude"),
        ("ollama:mistral", "mistral"),
        ("ollama:alpha", "unknown"),
        ("openai:gpt-4-1106-preview", "openai, before GPT-4o"),
        ("openai:o3-mini", "openai"),
        ("anthropic:claude-opus-4-20250514", "claude"),
        ("lab:deepseek-r1-distill-llama-70b", "llama 3"),
        ("lab:deepseek-r1-distill-qwen-32b", "qwen"),
        ("ollama:llama3.2:3b", "llama 3.1"),
        ("no colon", "unknown"),
    ],
)
def test_names_that_could_be_mistaken(model: str, family: str) -> None:
    """A family's word in a provider's or a derived model's name does not decide."""
    assert family_of(model).name == family


def test_known_counts() -> None:
    """The counts that the services reported of these texts come out, to the token."""
    once = [Message("user", "Say this is a test")]
    assert tokens.count_prompt_tokens(once, "openai:gpt-4o-mini") == 12
    assert tokens.count_prompt_tokens(once, "openai:gpt-4") == 12
    assert tokens.count_prompt_tokens([Message("user", "What is the capital of France?")], "lab:qwen3") == 15
    assert tokens.count_prompt_tokens([Message("user", "List all U.S. states.")], "gemini:gemini-2.5-flash") == 9


def test_chinese_is_counted_as_each_family_does() -> None:
    """Vocabularies differ most where the text is not English."""
    text = "电池能用两天，价格也不贵，我很满意。" * 10
    counts = {family: tokens.count_tokens(text, model) for family, model in MODELS.items()}
    assert counts["deepseek"] < counts["openai"] < counts["openai, before GPT-4o"] < counts["claude"]


# Any text ---------------------------------------------------------------------------------------


@settings(deadline=None)
@given(text=any_text, model=st.sampled_from([None, *MODELS.values()]))
def test_any_text_has_a_count(text: str, model: str | None) -> None:
    """A count is between 0 and the text's bytes, and only a text without any has none."""
    count = tokens.count_tokens(text, model)
    assert 0 <= count <= tokens.most_tokens(text, model)
    assert tokens.count_tokens(text, model) == count
    if text.strip():
        assert count


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("model", [None, *MODELS.values()])
def test_endless_runs_are_counted(model: str | None, text: str) -> None:
    """A long run of one thing takes no longer than other texts, and counts no more than its bytes."""
    assert 0 < tokens.count_tokens(text, model) <= tokens.most_tokens(text)


@pytest.mark.parametrize("model", MODELS.values())
def test_special_tokens_are_text(model: str) -> None:
    """What looks like a special token is counted as what it is made of."""
    assert tokens.count_tokens("<|endoftext|><|im_start|><start_of_turn>", model) >= 8


@pytest.mark.parametrize("model", [None, *MODELS.values()])
def test_lone_surrogates_are_counted(model: str | None) -> None:
    """Half a character, as file names and broken escapes have them, is no error."""
    assert tokens.count_tokens("a\ud800b\udfff", model) >= 1


def test_the_filling_of_an_estimate_has_its_length() -> None:
    """The answers that an estimate fills in count what they stand for, in every vocabulary."""
    for model in MODELS.values():
        factor = family_of(model).factor
        assert 500 <= tokens.count_tokens(" ~" * 500, model) <= 502 * factor


# Prompts ----------------------------------------------------------------------------------------


def test_each_message_has_its_overhead() -> None:
    """A second message costs its text and what stands around it."""
    one = [Message("user", "Hello")]
    for model in [None, *MODELS.values()]:
        single = tokens.count_prompt_tokens(one, model)
        double = tokens.count_prompt_tokens(one * 2, model)
        assert double - single == family_of(model).per_message + tokens.count_tokens("Hello", model)


def test_a_bound_needs_no_tokenizer() -> None:
    """A prompt's bytes bound its count."""
    prompt = [Message("system", "Be brief."), Message("user", "这是什么？" * 50)]
    for model in MODELS.values():
        bound = tokens.count_prompt_tokens(prompt, model, count=tokens.most_tokens)
        assert tokens.count_prompt_tokens(prompt, model) <= bound


# Without the package ----------------------------------------------------------------------------


@pytest.mark.usefixtures("without_tokenizer")
def test_a_rough_count_answers_without_the_package() -> None:
    """Where there is no wheel, every model has the rough count, and its error is known to be larger."""
    text = "The battery lasts two days, they said. 电池能用两天。"
    assert tokens.count_tokens(text, "openai:gpt-4o") == tokens.count_tokens(text)
    assert tokens.estimate_error("openai:gpt-4o") == tokens.estimate_error() > 0.5


def test_no_vocabulary_is_loaded_before_it_is_needed() -> None:
    """Importing loads no tokenizer, and neither does a rough count."""
    program = "import sys, moa_nb.tokens as t; t.count_tokens('a b'); print('splintr' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


# The recorded exchanges -------------------------------------------------------------------------


@pytest.mark.skipif(not EXCHANGES.is_dir(), reason=f"no recorded exchanges at {EXCHANGES}")
def test_the_error_on_the_recorded_exchanges(benchmark: ModuleType) -> None:
    """Against what services reported, the family's count is far nearer than the rough one."""
    known = [one for one in benchmark.counts() if one.family != "unknown"]
    assert len(known) >= 80
    long = [one for one in known if one.reported >= benchmark.LONG]
    by_family = sorted(abs(one.error(one.by_family)) for one in long)
    rough = sorted(abs(one.error(one.rough)) for one in long)
    assert len(long) >= 15
    assert statistics.median(by_family) < 0.02
    assert statistics.median(rough) > 0.05
    assert by_family[int(0.9 * len(long))] < 0.07


@pytest.mark.skipif(not EXCHANGES.is_dir(), reason=f"no recorded exchanges at {EXCHANGES}")
def test_the_declared_error_covers_the_recorded_prompts(benchmark: ModuleType) -> None:
    """No recorded prompt of a known family is longer than its estimate, its declared error and 3 tokens."""
    prompts = [one for one in benchmark.counts() if one.is_prompt and one.family != "unknown"]
    errors = {family.name: family.error for family in _FAMILIES}
    beyond = [one for one in prompts if one.reported > one.by_family * (1 + errors[one.family]) + 3]
    assert beyond == []
