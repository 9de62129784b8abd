"""Settings: which layer wins, what is said of a mistake, and that keys stay out of files and words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, strategies
from hypothesis import settings as effort

import moa_nb as moa
from moa_nb import settings
from moa_nb.errors import KeyRejected, SettingsError, UnknownName
from moa_nb.settings import ModelSettings, ProviderSettings, Settings, current, explain, services, services_with_keys


def user(text: str) -> None:
    """Write the user's settings."""
    (Path(os.environ["MOA_NB_HOME"]) / "moa.toml").write_text(text, "utf-8")


def project(text: str, name: str = "moa.toml") -> None:
    """Write the project's settings."""
    Path(name).write_text(text, "utf-8")


def source(key: str) -> str:
    """Where a value came from."""
    return next(where for name, _, where in explain() if name == key)


def test_each_layer_wins_over_the_one_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built-in, user file, project file, environment, ``configure``; and each value knows its origin."""
    seen = [(current().timeout, source("timeout"))]
    user("timeout = 1\nconcurrency = 11")
    seen.append((current().timeout, source("timeout")))
    project("timeout = 2")
    seen.append((current().timeout, source("timeout")))
    monkeypatch.setenv("MOA_NB_TIMEOUT", "3")
    seen.append((current().timeout, source("timeout")))
    moa.configure(timeout=4)
    seen.append((current().timeout, source("timeout")))
    moa.configure(timeout=None)
    seen.append((current().timeout, source("timeout")))
    home = os.environ["MOA_NB_HOME"]
    assert seen == [
        (120.0, "built-in"),
        (1.0, f"{home}/moa.toml"),
        (2.0, f"{Path.cwd()}/moa.toml"),
        (3.0, "environment (MOA_NB_TIMEOUT)"),
        (4.0, "configure"),
        (3.0, "environment (MOA_NB_TIMEOUT)"),
    ]
    assert current().concurrency == 11


def test_tables_are_merged_key_by_key() -> None:
    """A project's provider adds to the user's, and changes a value without repeating the others."""
    user('[providers.lab]\nbase_url = "http://one"\nconcurrency = 5\n[providers.den]\nbase_url = "http://den"')
    project('[providers.lab]\nbase_url = "http://two"')
    providers = current().providers
    assert (providers["lab"].base_url, providers["lab"].concurrency) == ("http://two", 5)
    assert providers["den"].base_url == "http://den"


def test_pyproject_and_folders_above_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """``[tool.moa_nb]`` of the nearest folder upwards; other tools' tables and comments are none."""
    project("# [tool.moa_nb] later\n[tool.moa_nb_other]\nx = 1", "pyproject.toml")
    assert current().pipeline == "moa-lite"
    project('[tool.moa_nb]\npipeline = "single"', "pyproject.toml")
    Path("deep/er").mkdir(parents=True)
    monkeypatch.chdir("deep/er")
    assert current().pipeline == "single"
    assert settings.project_folder() == Path.cwd().parents[1]
    monkeypatch.chdir("../..")
    project('[tool.moa-nb]\npipeline = "single"', "pyproject.toml")
    with pytest.raises(SettingsError, match=r"\[tool\.moa-nb\] sets nothing; write it as \[tool\.moa_nb\]"):
        current()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_in_another_encoding_is_told_so(encoding: str) -> None:
    """As editors on Windows may write it."""
    Path("moa.toml").write_text('pipeline = "grüße"', encoding)
    with pytest.raises(SettingsError, match=r"moa\.toml is no text in UTF-8: save it anew with that encoding"):
        current()


def test_the_example_of_a_models_name_is_one() -> None:
    """A provider's name gets a model's behind it, not another provider's before it."""
    project('[providers.lab]\nbase_url = "http://x"')
    for model, shown in {"lab": "lab:NAME", "lab:": "lab:NAME", "gpt-4o": "lab:gpt-4o"}.items():
        with pytest.raises(UnknownName, match=f"as in '{shown}', not '{model}'"):
            current().provider(model)


def test_a_changed_file_counts_at_once() -> None:
    """And the same settings are the same object until then."""
    project("timeout = 2")
    first = current()
    assert current() is first
    project("timeout = 25")
    os.utime("moa.toml", ns=(1, 1))
    assert current().timeout == 25.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timeot = 3", "unknown key 'timeot'; did you mean 'timeout'?"),
        ('timeout = "soon"', "timeout: input should be a valid number"),
        ('[providers.lab]\nbase_ulr = "x"', "base_url"),
        ("[providers.lab]\nconcurrency = 3", "providers.lab.base_url is missing"),
        ('[models."lab:a"]\nprice = 3', "unknown key 'models.lab:a.price'"),
        ('store = "cloud"', "store: input should be 'disk' or 'none'"),
        ("timeout = ", "is not valid TOML"),
        ('providers = "lab"', "providers:"),
        ("budget = -1", "budget: input should be greater than or equal to 0 (got -1)"),
        ("budget = inf", "budget: input should be a finite number"),
        ("budget = true", "budget: this takes a number, not true"),
        ('[models."lab:a"]\nprompt_price = false', "prompt_price: this takes a number, not false"),
        ("timeout = nan", "timeout: input should be a finite number"),
        ("timeout = 0", "timeout: input should be greater than 0"),
        ("concurrency = 1.5", "concurrency: input should be a valid integer"),
        ('hedge = "maybe"', "hedge: input should be a valid boolean"),
        ("keep_days = 0", "keep_days: input should be greater than or equal to 1"),
        ('references = "shorten"', "references: input should be 'trim' or 'summarize'"),
        ("max_ref_chars = 0", "max_ref_chars:"),
        ("env_file = 3", "env_file: input is not a valid path"),
        ("ca_file = true", "ca_file: input is not a valid path"),
        ("colab_secrets = 3", "colab_secrets: input should be a valid boolean"),
        ('[models."lab:a"]\nrequests_per_minute = 0', "models.lab:a.requests_per_minute:"),
        ('[models."lab:a"]\ntoken_per_minute = 5', "did you mean 'tokens_per_minute'?"),
        ('[providers.lab]\nbase_url = "127.0.0.1:8000/v1"', "an address begins with http:// or https://"),
        ('[providers.lab]\nbase_url = "llm.example.org"', "an address begins with http:// or https://"),
        ('[providers.offline]\nbase_url = "http://x"', "what this package calls its own agents"),
        ('[providers."a:b"]\nbase_url = "http://x"', "cannot stand in a model's name"),
    ],
)
def test_a_mistake_names_its_file_and_the_nearest_key(text: str, words: str) -> None:
    """One line, before anything else happens."""
    project(text)
    with pytest.raises(SettingsError) as raised:
        current()
    assert words in str(raised.value)
    assert str(Path.cwd() / "moa.toml") in str(raised.value)
    assert "\n" not in str(raised.value).strip() or "TOML" in str(raised.value)


def test_keys_that_begin_alike_keep_their_own_sources() -> None:
    """``ask_above`` in one file does not speak for ``ask_above_calls`` in another."""
    user("ask_above = 3")
    project("ask_above_calls = -1")
    with pytest.raises(SettingsError, match=r"work/moa\.toml: ask_above_calls"):
        current()


def test_the_environment_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """In mistakes of value and of name; an empty variable is none."""
    monkeypatch.setenv("MOA_NB_BUDGET", "")
    assert current().budget is None
    monkeypatch.setenv("MOA_NB_PROPOSERS", "lab:a, lab:b,")
    assert current().proposers == ("lab:a", "lab:b")
    monkeypatch.setenv("MOA_NB_BUDGET", "much")
    with pytest.raises(SettingsError, match=r"environment \(MOA_NB_BUDGET\): budget"):
        current()
    monkeypatch.delenv("MOA_NB_BUDGET")
    monkeypatch.setenv("MOA_NB_TIMEOT", "1")
    with pytest.raises(SettingsError, match="MOA_NB_TIMEOT sets nothing; did you mean 'timeout'"):
        current()


def test_configure_changes_nothing_when_it_is_refused() -> None:
    """All or nothing."""
    moa.configure(timeout=5)
    with pytest.raises(SettingsError, match="did you mean 'budget'"):
        moa.configure(timeout=6, budgett=1)
    assert current().timeout == 5.0


# Keys -------------------------------------------------------------------------------------------

KEY = "sk-secret-0123456789"


@pytest.mark.parametrize(
    "text",
    [
        f'[providers.lab]\nbase_url = "http://x"\nkey = "{KEY}"',
        f'[providers.lab]\nbase_url = "http://x"\nheaders = {{ Authorization = "Bearer {KEY}" }}',
        f'[providers.lab]\nbase_url = "http://x"\nheaders = {{ api-key = "{KEY}" }}',
        f'[providers.lab]\nbase_url = "http://x"\nkey_env = "{KEY}"',
        f'[providers.lab]\nbase_url = "http://x"\napi_key = "{KEY}"',
        f'[providers]\nlab = "{KEY}"',
    ],
)
def test_a_key_in_a_file_is_refused_and_not_repeated(text: str) -> None:
    """Under whatever name it was written."""
    project(text)
    with pytest.raises(SettingsError) as raised:
        current()
    assert KEY not in str(raised.value)


def test_a_key_is_in_no_repr_and_no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given to ``configure``, in a header, or in the environment."""
    monkeypatch.setenv("LAB_KEY", KEY)
    moa.configure(
        providers={
            "lab": {"base_url": "http://x", "key": KEY, "headers": {"api-key": KEY}},
            "den": {"base_url": "http://x", "key_env": "LAB_KEY"},
        },
    )
    shown = repr(current()) + str(explain()) + repr(current().provider("lab:a")) + repr(current().provider("den:a"))
    assert KEY not in shown
    assert current().provider("lab:a").key() == current().provider("den:a").key() == KEY


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read when a call is made, so that setting it later is enough."""
    provider = current().provider("openai:gpt-4o-mini")
    with pytest.raises(KeyRejected, match="OPENAI_API_KEY"):
        provider.key()
    monkeypatch.setenv("OPENAI_API_KEY", f"  {KEY}\n")
    assert provider.key() == KEY


@pytest.mark.parametrize("key", [lambda: KEY, KEY])
def test_a_key_may_be_a_function(key: str | Callable[[], str]) -> None:
    """For tokens that expire."""
    moa.configure(providers={"lab": {"base_url": "http://x", "key": key}})
    assert current().provider("lab:a").key() == KEY


# Names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "words"),
    [("gpt-4o", "provider:model"), ("opnai:gpt-4o", "did you mean 'openai'"), ("openai:", "provider:model")],
)
def test_a_model_is_named_with_its_provider(model: str, words: str) -> None:
    """Split at the first colon only."""
    with pytest.raises(UnknownName, match=words):
        current().provider(model)
    assert current().provider("ollama:llama3.2:3b").name == "ollama"


def test_services_are_looked_for_in_the_stated_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's order, not the environment's."""
    assert next(iter(services())) == "openai"
    monkeypatch.setenv("GROQ_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert [service.name for service in services_with_keys()] == ["anthropic", "groq"]


def test_a_service_without_default_models_answers_nobody_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key is there to be used, and is listed."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    assert services_with_keys() == []
    assert ("providers.azure.key", "(set)", "environment (AZURE_OPENAI_API_KEY)") in explain()


def test_a_known_service_can_be_moved_elsewhere() -> None:
    """The user's address over what is known, the service's own prices kept."""
    moa.configure(providers={"openai": {"base_url": "http://proxy/v1/"}})
    provider = current().provider("openai:gpt-4o-mini")
    assert (provider.base_url, provider.prices) == ("http://proxy/v1", "openai")


def test_the_fence_secret_is_one_and_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept in the data folder for its owner alone; where that cannot be, the process has one."""
    first = settings.fence_secret()
    file = Path(os.environ["MOA_NB_HOME"]) / "fence.key"
    assert file.read_bytes() == first
    assert file.stat().st_mode & 0o077 == 0
    (tmp_path / "blocked").write_text("a file")
    monkeypatch.setenv("MOA_NB_HOME", str(tmp_path / "blocked"))
    assert settings.fence_secret() == settings.fence_secret() != first


def test_settings_are_frozen() -> None:
    """A run's settings never change under it."""
    values: Any = current()
    with pytest.raises(ValueError, match="frozen"):
        values.timeout = 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'api_key = "{KEY}"', "name that as key_env"),
        (f'[providers.lab]\nbase_url = "http://x"\napi_key = "{KEY}"', "providers.lab.api_key would write the key"),
        ('[providers.lab]\nbase_url = "http://x"\nkey_evn = "LAB_KEY"', "did you mean 'key_env'?"),
        ('[providers.lab]\nbaseurl = "http://x"', "unknown key 'providers.lab.baseurl'; did you mean 'base_url'?"),
        ('[providers.lab]\nbase_url = "http://x"\npipeline = "single"', "before the first [table]"),
        ("[models]\nbudget = 1", "'budget' does not belong to [models]: write it before the first [table]"),
        ("[models.lab]\nprompt_price = 1", 'named provider:model in quotes, as in [models."lab:NAME"]'),
        (f'[providers.lab]\nbase_url = "http://ann:{KEY}@x/v1"', "key_env"),
    ],
)
def test_a_common_mistake_says_how_to_write_it(text: str, words: str) -> None:
    """And repeats no key."""
    project(text)
    with pytest.raises(SettingsError) as raised:
        current()
    assert words in str(raised.value)
    assert KEY not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["moa.toml", "pyproject.toml"])
def test_a_file_may_begin_with_a_byte_order_mark_and_name_one_proposer(name: str) -> None:
    """As Windows' editors write it."""
    table = "[tool.moa_nb]\n" if name == "pyproject.toml" else ""
    Path(name).write_text(f'{table}proposers = "lab:a"', "utf-8-sig")
    assert current().proposers == ("lab:a",)


def test_the_hint_before_a_further_sentence_ends() -> None:
    """A list of names gets a full stop."""
    with pytest.raises(UnknownName, match=r"(…|\w)\. A new one goes"):
        current().provider("zzzzzz:a")


def test_what_is_new_has_its_place_in_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches, days and paths are read from files and variables alike."""
    assert (current().hedge, current().references, current().max_ref_chars, current().keep_days) == (
        False,
        "trim",
        None,
        None,
    )
    project(
        'hedge = true\nreferences = "summarize"\n[models."lab:a"]\nrequests_per_minute = 60\ntokens_per_minute = 9000'
    )
    monkeypatch.setenv("MOA_NB_KEEP_DAYS", "30")
    monkeypatch.setenv("MOA_NB_MAX_REF_CHARS", "4000")
    monkeypatch.setenv("MOA_NB_COLAB_SECRETS", "yes")
    monkeypatch.setenv("MOA_NB_ENV_FILE", ".env")
    now = current()
    assert (now.hedge, now.references, now.keep_days, now.max_ref_chars) == (True, "summarize", 30, 4000)
    assert (now.colab_secrets, now.env_file) == (True, Path.cwd() / ".env")
    assert (now.models["lab:a"].requests_per_minute, now.models["lab:a"].tokens_per_minute) == (60, 9000)
    assert source("env_file") == "environment (MOA_NB_ENV_FILE)"
    assert source("models.lab:a.tokens_per_minute") == str(Path.cwd() / "moa.toml")


ODD = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(max_size=12)
    | strategies.binary(max_size=4),
    lambda parts: (
        strategies.lists(parts, max_size=3)
        | strategies.dictionaries(
            strategies.text(max_size=6) | strategies.sampled_from(["base_url", "lab", "lab:a", "key", "context"]),
            parts,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@effort(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=strategies.dictionaries(strategies.sampled_from([*Settings.model_fields, "timeot"]), ODD, max_size=2))
@example(values={"env_file": "\0"})
@example(values={"env_file": "\ud800"})
@example(values={"env_file": "~nobody-here/.env"})
@example(values={"env_file": "a" * 5000})
@example(values={"ca_file": "\0"})
@example(values={"ca_file": "two\nlines"})
@example(values={"ca_file": ""})
@example(values={"models": {3: {}}})
@example(values={"providers": {3: {"base_url": "http://x"}}})
@example(values={"providers": {"two\nlines": 3}})
@example(values={"models": {"two\nlines": {}}})
@example(values={"providers": {"lab": {"base_url": "http://[x"}}})
@example(values={"providers": {"lab": {"base_url": "http://x", "headers": {"a": 3}}}})
@example(values={"providers": {"lab": {"base_url": "http://x", "key_env": "\n"}}})
@example(values={"timeout": 10**400})
def test_whatever_is_configured_it_is_taken_or_refused_in_one_line(values: dict[str, Any]) -> None:
    """Nothing but ``SettingsError`` comes out, its line names a key that was given, and then nothing has changed."""
    before = current()
    refusal = None
    try:
        moa.configure(**values)
    except SettingsError as error:
        refusal = str(error)
    if refusal is None:
        assert all(isinstance(name, str) for name, _, _ in explain())
    else:
        assert len(refusal.splitlines()) == 1
        assert any(key in refusal for key in values)
        assert current() == before
    settings.reset()


def test_the_readme_lists_every_setting() -> None:
    """Each with its built-in value, in the order of the code; the keys of the two tables too."""
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    table = text.partition("<!-- settings -->\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    shown = {key: (value, what) for keys, value, what in rows for key in re.findall(r"`([^`]+)`", keys)}
    assert [key.partition(".")[0] for key in shown] == list(Settings.model_fields)
    for key, field in Settings.model_fields.items():
        if key in {"providers", "models"}:
            continue
        built_in = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        assert shown[key][0] == ("" if field.default in {None, ()} else f"`{built_in}`")
    tables = {"providers.NAME": ProviderSettings, 'models."PROVIDER:MODEL"': ModelSettings}
    for key, kind in tables.items():
        assert set(re.findall(r"`(\w+)`", shown[key][1])) == set(kind.model_fields)
