"""``%moa edit TEMPLATE``: a playground of a pipeline that uses the template, on the last text that was asked."""

from __future__ import annotations

from contextlib import suppress

from moa_nb import settings, templating
from moa_nb.engine import current
from moa_nb.errors import MoaError, SetupError, UnknownName, nearest
from moa_nb.notebook.playground.workbench import Playground
from moa_nb.pipeline import presets
from moa_nb.pipeline.result import Result

__all__ = ["edit"]

_SAMPLE = (
    "The mill closed in May. Forty people lost their work. The town bought the mill in June. "
    "It is to be a school. Why did the town buy the mill?"
)
"""What is asked where nothing has been asked yet."""


def edit(template: str, text: str | None = None) -> Playground:
    """Return a playground in which a template can be edited.

    Args:
        template: its name.
        text: what is asked; ``None``: the last text of this session.

    Raises:
        UnknownName: there is no such template.
        SetupError: no pipeline uses it on a text.
    """
    known = templating.names("prompts", ".jinja")
    if template not in known:
        msg = f"no template {template!r}; {nearest(template, known)}"
        raise UnknownName(msg)
    asked = text or _last_text() or _SAMPLE
    default = settings.current().pipeline
    for name in dict.fromkeys([default, *presets.names()]):
        with suppress(MoaError):  # one that cannot be run here is none to edit in
            playground = Playground(asked, pipeline=None if name == default else name)
            if template in playground.templates:
                playground.template = template
                return playground
    where = templating.load(template).where
    msg = f"no pipeline that can run here uses {template!r} on a text: edit its file, {where}, or a copy of it in templates/prompts"
    raise SetupError(msg)


def _last_text() -> str | None:
    latest = current().latest
    if not isinstance(latest, Result):
        return None
    return next((message.content for message in reversed(latest.conversation) if message.role == "user"), None)
