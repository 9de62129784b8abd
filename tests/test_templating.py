"""Templates: whose is found, what a missing variable is told, and that values never become code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_nb import templating
from moa_nb.errors import TemplateError, UnknownName
from moa_nb.templating import fence, load, names, parse


def write(folder: str | Path, name: str, text: str, kind: str = "prompts") -> None:
    """Write a template of one's own."""
    path = Path(folder) / "templates" / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_the_projects_template_wins_over_the_users_over_ours() -> None:
    """And the list says whose each one is."""
    ours = load("synthesize").source
    assert names("prompts", ".jinja")["synthesize"] == "built-in"
    write(os.environ["MOA_NB_HOME"], "synthesize.jinja", "the user's")
    assert (load("synthesize").source, names("prompts", ".jinja")["synthesize"]) == ("the user's", "user")
    write(".", "synthesize.jinja", "the project's")
    assert (load("synthesize").source, names("prompts", ".jinja")["synthesize"]) == ("the project's", "project")
    assert ours not in {"the user's", "the project's"}


def test_the_mark_that_editors_put_before_a_text_is_not_sent() -> None:
    """A file that Windows saved is its text."""
    write(".", "marked.jinja", "\ufeffShort: {{ text }}")
    assert load("marked").render({"text": "why"}) == "Short: why"


def test_templates_in_folders_are_named_with_them() -> None:
    """``debate/open`` is a file in a folder."""
    write(".", "mine/deep.jinja", "deep")
    assert load("mine/deep").render({}) == "deep"
    assert "mine/deep" in names("prompts", ".jinja")


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../b"])
def test_a_name_does_not_leave_its_folder(name: str) -> None:
    """There is no such template."""
    with pytest.raises(UnknownName):
        load(name)


def test_an_unknown_name_names_the_nearest() -> None:
    """As every unknown name does."""
    with pytest.raises(UnknownName, match="did you mean 'synthesize'"):
        load("synthesise")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ nmae }}", "needs 'nmae', which is not there; did you mean 'name'?"),
        ("{{ row.citty }}", "has no 'citty'; did you mean 'city'?"),
        ("{{ name + 3 }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% include 'synthesise' %}", "did you mean 'synthesize'"),
        ("{{ name | nofilter }}", "line 1"),
        ("a\n{% if %}", "line 2"),
    ],
)
def test_a_mistake_in_a_template_is_one_line(source: str, words: str) -> None:
    """It names itself and what would be right."""
    with pytest.raises(TemplateError) as raised:
        parse(source).render({"name": "Ann", "row": {"city": "Bern"}})
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_variables_are_known_before_rendering() -> None:
    """``check`` names the first that is missing."""
    template = parse("{% for one in many %}{{ one }} {{ other }}{% endfor %}")
    assert template.variables == {"many", "other"}
    template.check(["many", "other", "more"])
    with pytest.raises(TemplateError, match="needs 'other'"):
        template.check(["many", "ohter"])


@pytest.mark.parametrize(
    "source",
    [
        "{{ x.__class__ }}",
        "{{ x['__class__'] }}",
        "{{ x._private }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ x | attr('__class__') }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ many.append(3) }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_templates_reach_nothing_private_and_change_nothing(source: str) -> None:
    """No attribute that starts with an underscore, no list of the caller's is changed."""
    many = [1]
    with pytest.raises(TemplateError):
        parse(source).render({"x": "text", "many": many})
    assert many == [1]


@given(value=st.text(alphabet=st.sampled_from("{}%#-7*\n ab_<&")) | st.sampled_from(["{{ 7*7 }}", "{% raw %}", "{#"]))
def test_a_value_stands_as_it_is(value: str) -> None:
    """Braces are never rendered again, and nothing is escaped."""
    assert parse("<{{ value }}>").render({"value": value}) == f"<{value}>"
    rendered = parse("{% for one in values %}{{ one }}|{% endfor %}").render({"values": [value, value]})
    assert rendered == f"{value}|{value}|"


def test_an_included_file_is_read_again_when_it_changes() -> None:
    """Editing it takes effect without a new kernel."""
    write(".", "part.jinja", "one")
    whole = parse("{% include 'part' %} {% include 'part.jinja' %}")
    assert whole.render({}) == "one one"
    write(".", "part.jinja", "two")
    assert whole.render({}) == "two two"


def test_a_file_that_is_no_text_is_a_template_error() -> None:
    """With the byte where it goes wrong."""
    write(".", "bad.jinja", "")
    (Path("templates/prompts") / "bad.jinja").write_bytes(b"caf\xe9")
    with pytest.raises(TemplateError, match="byte 3"):
        load("bad")


@given(
    texts=st.lists(st.text(alphabet=st.characters(), max_size=30), max_size=4),
    secret=st.binary(min_size=1, max_size=80),
)
def test_a_fence_stands_in_no_text(texts: list[str], secret: bytes) -> None:
    """Eighteen hex digits that depend on texts and secret alone."""
    mark = fence(texts, secret)
    assert fence(list(texts), secret) == mark
    assert len(mark) == 18
    assert not any(mark in text for text in texts)


def test_a_fence_avoids_a_text_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a text hold its own fence by chance, another is made."""
    import hashlib

    class Predictable:
        marks = iter(["taken", "taken", "free"])

        def update(self, data: bytes) -> None:
            """Do nothing."""

        def hexdigest(self) -> str:
            return next(self.marks)

    monkeypatch.setattr(hashlib, "blake2b", lambda **_: Predictable())
    assert fence(["it is taken"], b"s") == "free"


def test_frames_are_small_tables_in_a_prompt() -> None:
    """At most twenty rows, cells in one line."""
    frame = pd.DataFrame({"a": ["x|y", "two\nlines"], "b": [1, 2]})
    text: Any = templating.to_text(frame)
    assert text.split("\n")[2:] == ["| 0 | x\\|y | 1 |", "| 1 | two lines | 2 |"]
    assert "(80 more rows)" in templating.to_text(pd.Series(range(100)))


def test_what_people_see_is_escaped() -> None:
    """The panels' environment escapes by default."""
    assert templating.panel_environment().from_string("{{ x }}").render(x="<script>") == "&lt;script&gt;"


# Templates run nothing of the notebook's --------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ os.popen('true').read() }}", "'os' is a module, not a value; compute it in a cell first"),
        ("{{ frame.to_csv('leak') }}", "a template may not call frame.to_csv: it reads values; compute it in a cell"),
        ("{{ holder.do.append }}{{ holder.run() }}", "a template may not call holder.run: it reads values"),
        ("{{ holder.module.system('true') }}", "a template may not call system: it reads values"),
        ("{{ frame.a.sort_values(key=frame.to_csv) }}", "a template may not call"),
        ("{{ frame.dropna(inplace=true) }}", "a template may not call frame.dropna"),
        ("{{ (frame | attr('to_csv'))('leak') }}", "a template may not call frame.to_csv"),
        ("{{ '{0.to_csv}'.format(frame) }}{{ frame.eval('a') }}", "a template may not call frame.eval"),
        ("{{ dict.fromkeys('ab') }}", "a template may not call dict.fromkeys"),
        ("{{ [].append(1) }}", "a template may not change values, as list.append does"),
    ],
)
def test_a_template_runs_no_code_of_the_notebooks(source: str, words: str) -> None:
    """Neither modules nor functions nor methods that write, by whatever way they are reached."""

    class Holder:
        do: tuple[Any, ...] = ()
        module = os

        def __init__(self) -> None:
            self.ran = False
            self.do = Done()

        def run(self) -> None:
            self.ran = True

    class Done:
        append = "done"

    holder, frame = Holder(), pd.DataFrame({"a": [2, None, 1]})
    with pytest.raises(TemplateError) as raised:
        parse(source).render({"os": os, "frame": frame, "holder": holder})
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (holder.ran, len(frame), list(Path().iterdir())) == (False, 3, [])


def test_a_template_may_ask_plain_values_and_frames() -> None:
    """Methods that read, loops, macros and what Jinja has itself."""
    frame = pd.DataFrame({"a": [2, 5, 1]})
    values = {"frame": frame, "name": "Ann", "day": pd.Timestamp("2024-02-03"), "row": {"a": 1}}
    source = (
        "{{ name.upper() }} {{ '{}!'.format(name) }} {{ frame.a.nlargest(1).sum() }} {{ day.strftime('%Y') }} "
        "{% for key, value in row.items() %}{{ loop.cycle('x', 'y') }}{{ key }}{{ value }}{% endfor %} "
        "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(3) }} {{ range(2) | list }} {{ 2.5.is_integer() }}"
    )
    assert parse(source).render(values) == "ANN Ann! 5 2024 xa1 33 [0, 1] False"


def test_a_value_may_be_named_as_something_of_jinjas() -> None:
    """It is filled in where it is given; else the name is Jinja's."""
    template = parse("{{ range }} {{ dict }}")
    assert template.variables == {"range", "dict"}
    template.check([])
    assert template.render({"range": "far", "dict": "words"}) == "far words"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ range }}", "that is a function, not a value"),
        ("{{ name.upper }}", "that is a function, not a value"),
        ("{{ plain }}", "a object has no text of its own"),
        ("{{ [name] | map('upper') }}", "add | list or | join"),
        ("{{ len }}", "'len' is a function, not a value"),
    ],
)
def test_what_is_no_value_does_not_reach_a_prompt(source: str, words: str) -> None:
    """A function or an object without a text of its own is a mistake."""
    with pytest.raises(TemplateError, match=r"^template 'text'") as raised:
        parse(source).render({"name": "Ann", "plain": object(), "len": len})
    assert words in str(raised.value)


def test_whatever_fails_in_a_template_is_one_line() -> None:
    """An endless inclusion, an error of a value's own, a name no file can have."""

    class Bad:
        def __str__(self) -> str:
            msg = "two\nlines"
            raise RuntimeError(msg)

    write(".", "loop.jinja", "{% include 'loop' %}")
    with pytest.raises(TemplateError, match="include itself"):
        load("loop").render({})
    with pytest.raises(TemplateError, match="RuntimeError: two lines"):
        parse("{{ bad }}").render({"bad": Bad()})
    with pytest.raises(UnknownName):
        load("x" * 5000)


def test_a_column_may_be_named_as_something_of_jinjas() -> None:
    """Its cells are filled in; without such a column the name is Jinja's."""
    from moa_nb.frames.rows import Rows

    frame = pd.DataFrame({"range": ["near", "far"], "a": ["x", "y"]})
    said = []
    for data, template in ((frame, "{{ range }}"), (frame[["a"]], "{{ a }}{{ range(2) | sum }}")):
        task = Rows.of(data, None, template=template, na="skip").task(1)
        assert task is not None
        said.append(task.conversation[0].content)
    assert said == ["far", "y1"]
