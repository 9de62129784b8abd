"""What ``%moa`` lists: pipelines, models, settings, templates, and what goes where."""

from __future__ import annotations

from typing import Any

from moa_nb import settings, templating
from moa_nb.chat import Message, Request, Sampling
from moa_nb.engine.engine import Engine
from moa_nb.engine.paths import Paths
from moa_nb.errors import MoaError
from moa_nb.notebook.arguments import COMMANDS, cell_parser
from moa_nb.notebook.kept import home, megabytes
from moa_nb.panels.tables import TableDisplay, table
from moa_nb.pipeline import presets
from moa_nb.pipeline.explain import explain
from moa_nb.plain import to_plain
from moa_nb.store.upkeep import size

__all__ = ["check", "help_text", "models", "pipelines", "settings_table", "templates", "where"]


def help_text() -> str:
    """Return what ``%moa`` alone shows."""
    commands = "\n".join(f"  %moa {name:<10} {what}" for name, what in COMMANDS.items())
    return f"{cell_parser().format_help()}\nand on a line of its own:\n{commands}"


async def pipelines(engine: Engine) -> TableDisplay:
    """Return all pipelines: name, description, how many calls with those who answer now, place."""
    rows = []
    default = settings.current().pipeline
    cast = await engine.who_answers()
    for name, place in presets.names().items():
        calls = ""
        try:
            pipeline = presets.load(name)
            description = pipeline.description
            calls = (await explain(pipeline, cast.roles, Paths())).calls
        except MoaError as error:
            description = f"cannot be used: {error}"
        rows.append((name + (" (default)" if name == default else ""), description, calls, place))
    return table(rows, ["pipeline", "what it does", "calls a text", "from"], caption=cast.why)


async def models(engine: Engine, provider: str | None) -> TableDisplay:
    """Return who plays which role; with a provider's name, the models it lists."""
    configured = settings.current()
    gateway = engine.gateway(configured)
    if provider is not None:
        found = configured.provider(f"{provider}:any")
        if provider == "offline":
            from moa_nb.providers import offline

            return table(
                [(f"offline:{name}", what) for name, what in offline.ALGORITHMS.items()], ["model", "what it does"]
            )
        if provider == "function":
            from moa_nb.providers import functions

            return table([(f"function:{name}",) for name in functions.registered()], ["model"])
        names = await gateway.list_models(found)
        return table(
            [(f"{provider}:{name}", _price(gateway.price(f"{provider}:{name}"))) for name in names], ["model", "price"]
        )
    cast = await engine.cast(configured, gateway)
    rows = [(role, model, _price(gateway.price(model))) for role in settings.ROLES for model in cast.roles[role]]
    return table(rows, ["role", "model", "price"], caption=cast.why)


def _price(price: Any) -> str:
    if price is None:
        return "unknown"
    million = 1_000_000
    dollars_in, dollars_out = price.worst(million, 0), price.worst(0, million)
    if not dollars_in and not dollars_out:
        return "free"
    return f"${dollars_in:.2f} in, ${dollars_out:.2f} out per million tokens ({price.source})"


def settings_table() -> TableDisplay:
    """Return each setting with its value and where it came from."""
    rows = [(key, _shown(value), source) for key, value, source in settings.explain()]
    return table(rows, ["setting", "value", "from"])


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)


def templates(name: str | None) -> TableDisplay | str:
    """Return all prompt templates; with a name, the template's text."""
    if name is not None:
        found = templating.load(name)
        return to_plain(f"{{# {found.name}, from {found.where} #}}\n{found.source}")
    rows = []
    for known, place in templating.names("prompts", ".jinja").items():
        rows.append((known, ", ".join(sorted(templating.load(known).variables)), place))
    return table(rows, ["template", "uses", "from"])


async def check(engine: Engine) -> TableDisplay:
    """Return how each configured model answers when it is asked for one token."""
    configured = settings.current()
    gateway = engine.gateway(configured)
    cast = await engine.cast(configured, gateway)
    rows = []
    for model in dict.fromkeys(model for role in settings.ROLES for model in cast.roles[role]):
        if model.startswith(("offline:", "function:")):
            rows.append((model, "ready", "", ""))
            continue
        request = Request(model, (Message("user", "Answer with OK."),), Sampling(max_tokens=1))
        try:
            answer = await gateway.complete(request, cache="off")
        except MoaError as error:
            rows.append((model, str(error), "", ""))
            continue
        cost = "unknown" if answer.cost is None else f"${answer.cost:.6f}"
        rows.append((model, f"answers as {answer.model or model}", f"{answer.seconds:.2f} s", cost))
    return table(rows, ["model", "answer", "time", "cost"], caption=cast.why)


_STORED = "answers, runs with what was asked in them, chats, versions of templates and costs"


async def where(engine: Engine) -> TableDisplay:
    """Return what is sent where, and what is stored where."""
    configured = settings.current()
    cast = await engine.cast(configured, engine.gateway(configured))
    rows: list[tuple[str, str, str]] = []
    for model in dict.fromkeys(model for role in settings.ROLES for model in cast.roles[role]):
        provider = configured.provider(model)
        target = provider.base_url or "this computer"
        rows.append(("sent", f"your text, and other agents' answers, to {model}", target))
    path = settings.data_folder() / "store.sqlite"
    if configured.store == "none":
        rows.append(("stored", "nothing on disk", "–"))
    else:
        taken = f" ({megabytes(size(path))})" if path.exists() else ""
        rows.append(("stored", f"{_STORED}{taken}; never keys", home(path)))
    rows.append(("stored", "the secret of the fences between quoted texts", home(settings.data_folder() / "fence.key")))
    rows.append(("stored", "panels, in the notebook that you save", "the .ipynb file"))
    return table(rows, ["", "what", "where"])
