"""Forms: declared in any way, told to models and services, read from whatever they write, settled between several."""

from __future__ import annotations

import datetime as dt
import enum
import json
from decimal import Decimal
from typing import Annotated, Any, Literal

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from moa_nb.errors import SetupError
from moa_nb.frames.columns import frame
from moa_nb.frames.texts import TEXT, Texts
from moa_nb.pipeline.forms import Form, form

ENOUGH = hypothesis_settings(max_examples=150, deadline=None)


class Mood(enum.Enum):
    """How it feels."""

    GOOD = "good"
    BAD = "bad"


class Level(enum.IntEnum):
    """How much."""

    LOW = 1
    HIGH = 2


class Item(BaseModel):
    """A bought thing."""

    name: str
    price: Decimal | None = Field(None, ge=0)


class Cat(BaseModel):
    """One kind."""

    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    """Another kind."""

    kind: Literal["dog"]
    barks: bool


class Order(BaseModel):
    """Nearly everything that pydantic has."""

    mood: Mood
    items: list[Item] = []
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    when: dt.date
    at: dt.datetime | None
    took: dt.timedelta | None = None
    n: int | float = 3
    level: Level = Level.LOW
    tags: set[str] = set()
    scores: dict[str, float] = {}
    pair: tuple[int, str] | None = None
    code: str = Field("x", pattern="^[a-z]+$", alias="Code-Nr")
    price: Decimal


class Tree(BaseModel):
    """What holds itself."""

    value: int
    children: list[Tree] = []
    parent: Tree | None = None


ORDER = {
    "mood": "GOOD",
    "items": [{"name": "bag", "price": "9.50"}],
    "pet": {"kind": "dog", "barks": "yes"},
    "when": "2024-01-02",
    "at": "2024-01-02T03:04:05+02:00",
    "n": 2.5,
    "level": "2",
    "tags": ["b", "a", "b"],
    "scores": {"x": "1"},
    "pair": [1, "q"],
    "Code-Nr": "abc",
    "price": 12.5,
}


def columns(one: Form, *answers: str | None) -> pd.DataFrame:
    """The columns of some answers, two rows with the same label."""
    texts = Texts(len(answers))
    for place, answer in enumerate(answers):
        value = None if answer is None else one.read(answer)
        texts[place] = None if value is None else one.text(value)
    return frame(one, texts, pd.Index([7] * len(answers)))


# Declared -----------------------------------------------------------------------------------------


def test_whatever_pydantic_has_is_filled_in_and_comes_back_as_columns_of_its_types() -> None:
    """Labels, dates, decimals, nested and keyed values are read from loose JSON; each column has its dtype."""
    found = columns(form(Order), json.dumps(ORDER), None)
    assert found.dtypes.astype(str).to_dict() == {
        "mood": "category",
        "items": "object",
        "pet": "object",
        "when": "datetime64[us]",
        "at": "datetime64[us, UTC]",
        "took": str(pd.api.types.pandas_dtype(TEXT)),
        "n": "Float64",
        "level": "category",
        "tags": "object",
        "scores": "object",
        "pair": "object",
        "Code-Nr": str(pd.api.types.pandas_dtype(TEXT)),
        "price": "object",
    }
    first = found.iloc[0].to_dict()
    assert first["items"] == [{"name": "bag", "price": "9.50"}]
    assert first["pet"] == {"kind": "dog", "barks": True}
    assert (first["tags"], first["scores"], first["pair"]) == (["a", "b"], {"x": 1.0}, [1, "q"])
    assert (first["level"], first["price"]) == (2, Decimal("12.5"))
    assert first["at"] == pd.Timestamp("2024-01-02T01:04:05Z")
    assert found.iloc[1].isna().all()
    assert list(found["level"].cat.categories) == [1, 2]


AWKWARD = ["json", "schema", "copy", "model_x", "model_dump_me", "class", "größe", "my field", "field_0", "_x", "a.b"]


def test_a_field_may_have_any_name() -> None:
    """Names that pydantic or Python keep for themselves are columns like others, in their order."""
    one = form(dict.fromkeys(AWKWARD, int))
    assert one.names == tuple(AWKWARD)
    assert one.read(json.dumps({name: place for place, name in enumerate(AWKWARD)})) == {
        name: place for place, name in enumerate(AWKWARD)
    }
    assert columns(one, None).columns.tolist() == AWKWARD


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"a": "float"}, "should be a type such as float"),
        ({"a": 3}, "should be a type such as float"),
        ({1: str}, "a field's name is a text"),
        ({}, "has no fields"),
        ({"a": {}}, "has no fields"),
        (list, "a schema is a pydantic model"),
        (pd.Series({"a": int}), "a schema is a pydantic model"),
        ({"a": None}, "should be a type such as float"),
        ({"a": lambda text: text}, "should be a type such as float"),
        ({"a": pd.Timestamp}, "take a plain type such as float"),
        ({"type": "objct", "properties": {"a": {"type": "string"}}}, "did you mean 'object'"),
        (RootModel[list[int]], "has no fields"),
        ({"type": "object", "properties": {"a": {"type": "strng"}}}, "did you mean 'string'"),
        ({"type": "array", "items": {"type": "string"}}, "one of an object"),
        ({"type": "object", "properties": {"a": {"enum": [[1], [2]]}}}, "labels are texts"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, "cannot be used"),
    ],
)
def test_what_cannot_be_filled_in_is_refused_before_anything_is_asked(schema: Any, why: str) -> None:
    """The error says in one line what is wrong."""
    with pytest.raises(SetupError, match=why) as caught:
        form(schema)
    assert "\n" not in str(caught.value)


def test_a_field_with_two_names_is_refused() -> None:
    """A model that is read by one name and written by another would come back without the field."""

    class Split(BaseModel):
        price: float = Field(validation_alias="Preis")

    with pytest.raises(SetupError, match="as 'Preis' and writes it otherwise"):
        form(Split)


def test_a_dict_of_types_takes_lists_of_objects_and_names_of_json_schemas() -> None:
    """A list of one dict is a list of such objects; fields called "type" or "properties" are fields."""
    one = form({"items": [{"sku": str, "n": int}], "properties": {"color": str}, "type": ["a", "b"]})
    filled = {"items": [{"sku": "x", "n": 2}], "properties": {"color": "red"}, "type": "b"}
    assert one.read(json.dumps(filled)) == filled


@pytest.mark.parametrize(
    "schema", [Order, Tree, Item, {"a": int, "b c": [{"d": str}], "e": ["x", "y"], "f": dt.date | None}]
)
def test_a_form_is_made_again_from_its_record(schema: Any) -> None:
    """The record is JSON, and the form that it makes tells and reads the same."""
    one = form(schema)
    again = form(json.loads(json.dumps(one.to_record())))
    assert again.said == one.said
    assert again.schema == one.schema or again.schema is None
    assert again.names == one.names


# Told ---------------------------------------------------------------------------------------------


def nodes(node: Any) -> list[dict[str, Any]]:
    """All objects within a JSON schema, itself included."""
    if isinstance(node, list):
        return [found for one in node for found in nodes(one)]
    return [node, *(found for one in node.values() for found in nodes(one))] if isinstance(node, dict) else []


class Plain(BaseModel):
    """What all services take."""

    z: int = Field(3, ge=1, description="the last letter")
    mood: Mood | None
    items: list[Item]
    a: Decimal


def test_services_get_a_schema_without_anything_that_one_of_them_refuses() -> None:
    """Objects list every field in its order and allow no other; there are no references, bounds or defaults."""
    wanted = form(Plain).schema
    assert wanted is not None
    schema = json.loads(wanted.json)
    assert (schema["type"], [*schema["properties"]], schema["required"]) == (
        "object",
        ["z", "mood", "items", "a"],
        ["z", "mood", "items", "a"],
    )
    refused = {"$ref", "$defs", "default", "oneOf", "allOf", "minimum", "pattern", "format", "const", "title"}
    for node in nodes(schema):
        if node.get("type") == "object" and "properties" in node:
            assert node["additionalProperties"] is False
            assert node["required"] == [*node["properties"]]
    assert not refused.intersection(key for node in nodes(schema) for key in node)
    assert schema["properties"]["z"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]


@pytest.mark.parametrize("schema", [Tree, {"a": dict[str, int]}, {"a": Any}, {"a": tuple[int, str]}])
def test_what_services_take_no_schema_for_is_told_in_words_alone(schema: Any) -> None:
    """Recursion, fields of any name or kind: no schema is sent, and the prompt says what is wanted."""
    one = form(schema)
    assert one.schema is None
    assert one.said


def test_what_holds_itself_is_told_once() -> None:
    """The words for a tree end, and so do its measures."""
    said = form(Tree).said
    assert said.count('"children"') == 2
    assert "again" in said
    assert form(Tree).read('{"value": 1, "parent": {"value": 2}}')


def test_the_words_say_every_bound() -> None:
    """Whatever is checked is said: ranges, patterns, numbers of entries, formats, both kinds of a union."""
    one = form(Order)
    for said in ("at least 0", "regular expression ^[a-z]+$", "none twice", "YYYY-MM-DD", "ISO 8601", "Cat", "Dog"):
        assert said in one.said
    assert form({"n": Annotated[float, Field(ge=0, le=1)]}).said == '- "n": a number from 0 to 1'


# Read ---------------------------------------------------------------------------------------------

LABELS = ["a|b", "c, d", "yes", "1", "not spam", "spam"]


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("a|b", "a|b"),
        ('"c, d"', "c, d"),
        ("yes", "yes"),
        ("1", "1"),
        ("Label: not spam", "not spam"),
        ('{"label": 1}', "1"),
        ('{"label": true}', "yes"),
        ('{"LABEL": "Not-Spam"}', "not spam"),
        ('```json\n{"label": "spam"}\n```\nI hope {this} helps.', "spam"),
        ('[{"label": "spam"}]', "spam"),
        ("no idea", None),
    ],
)
def test_a_label_is_read_however_it_is_written(said: str, label: str | None) -> None:
    """Alone, after a marker, in JSON of another type or case, in a fence, in a list of one."""
    found = form({"label": LABELS}).read(said)
    assert found == (None if label is None else {"label": label})


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        ('{"labels": ["praise", "bug", "bug"]}', ["bug", "praise"]),
        ("bug, billing", ["bug", "billing"]),
        ('{"labels": "Bug, praise"}', ["bug", "praise"]),
        ('["bug"]', ["bug"]),
        ("none", []),
        ('{"labels": "none"}', []),
        ("[]", []),
    ],
)
def test_several_labels_are_read_as_a_set_in_the_order_of_their_declaration(said: str, labels: list[str]) -> None:
    """So that two who say the same agree, in whatever order they say it."""
    assert form({"labels": set[Literal["bug", "billing", "praise"]]}).read(said) == {"labels": labels}


@pytest.mark.parametrize(
    ("said", "score"), [("I would give it an 8 out of 10", 8), ("8/10", 8), ('{"score": "7"}', 7), ("11", None)]
)
def test_a_rating_is_read_with_its_scale_in_sight(said: str, score: int | None) -> None:
    """The 10 of "8 out of 10" is no score."""
    found = form({"score": Annotated[int, Field(ge=1, le=10)]}).read(said)
    assert found == (None if score is None else {"score": score})


def test_labels_that_differ_only_in_case_stay_apart() -> None:
    """What is spelt as declared is that label; what could be two is none."""
    one = form({"size": ["A", "a", "B"]})
    assert [one.read(json.dumps({"size": size})) for size in ("A", "a", "b")] == [
        {"size": "A"},
        {"size": "a"},
        {"size": "B"},
    ]


class Loose(BaseModel):
    """Fields that may be missing in each way."""

    price: float | None
    name: str | None = None
    when: dt.date | None = None
    n: int = 3


@pytest.mark.parametrize(
    "said",
    [
        '{"price": null}',
        '{"price": "null", "name": "null", "when": "n/a", "n": null}',
        '{"name": null}',
        '{"Price": "NaN", "when": ""}',
    ],
)
def test_null_is_read_however_it_is_written(said: str) -> None:
    """As text, as a field left out, as a default that services without such a thing send as null."""
    assert form(Loose).read(said) == {"price": None, "name": None, "when": None, "n": 3}


def test_an_object_with_none_of_the_fields_fills_in_nothing() -> None:
    """Though each field may be left out, an apology in JSON is no answer."""
    assert form(Loose).read('{"error": "I cannot"}') is None
    assert form(Loose).mistakes("{}").startswith("none of the fields is there")


@pytest.mark.parametrize("said", ['{"n": NaN}', '{"n": "Infinity"}', '{"n": 1e999}', '{"n": "nan"}'])
def test_what_json_has_no_number_for_is_no_number(said: str) -> None:
    """Such an answer is asked for again; it never comes into a column."""
    assert form({"n": float}).read(said) is None


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    """One broken character costs no answer."""
    one = form({"a": str, "b": int})
    assert one.read('{"a": "x\\ud800", "b": 1}') == {"a": "x?", "b": 1}
    assert one.read('{"a": "x\ud800", "b": 1}') == {"a": "x?", "b": 1}


def test_big_numbers_are_exact() -> None:
    """A whole number beyond 64 bits is kept as it is, and makes its column Python's."""
    big = 123456789012345678901234567890
    found = columns(form({"n": int, "d": Decimal}), f'{{"n": {big}, "d": "0.1000"}}', '{"n": 1, "d": 1}')
    assert found["n"].tolist() == [big, 1]
    assert found["d"].tolist() == [Decimal("0.1000"), Decimal(1)]


class Strict(BaseModel):
    """A model with validators of somebody's own."""

    model_config = ConfigDict(strict=True)
    when: dt.date
    n: int

    @field_validator("n")
    @classmethod
    def fails(cls, n: int) -> int:
        """Refuse two, stumble over one."""
        if n == 1:
            raise KeyError(n)
        if n == 2:
            raise ValueError("no twos,\nsorry")
        return n


def test_a_validator_may_raise_whatever_it_likes() -> None:
    """Its error is a mistake that the model is told; strict models take dates as JSON has them."""
    one = form(Strict)
    assert one.read('{"when": "2024-01-01", "n": 3}') == {"when": "2024-01-01", "n": 3}
    assert one.mistakes('{"when": "2024-01-01", "n": 1}') == "KeyError: 1"
    assert "no twos, sorry" in one.mistakes('{"when": "2024-01-01", "n": 2}')


def test_two_hundred_fields_are_a_form_too() -> None:
    """All are told, and all are columns."""
    one = form({f"f{number}": int | None for number in range(200)})
    assert len(one.said.splitlines()) == 200
    assert columns(one, '{"f7": 7}').notna().sum().sum() == 1


# Whatever is declared -----------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
NAMES = st.one_of(st.sampled_from(AWKWARD), st.text("abcé _-1", min_size=1, max_size=5).filter(str.strip))
MOMENTS = st.datetimes(timezones=st.none() | st.just(dt.UTC))

FIELDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (str, TEXTS),
    "whole": (int, st.integers()),
    "small": (int, st.integers(-(2**63), 2**63 - 1)),
    "number": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "bool": (bool, st.booleans()),
    "label": (["good", "so so", "bad"], st.sampled_from(["good", "so so", "bad"])),
    "date": (dt.date, st.dates().map(dt.date.isoformat)),
    "moment": (dt.datetime, MOMENTS.map(dt.datetime.isoformat)),
    "list": (list[str], st.lists(TEXTS, max_size=3)),
    "labels": (set[Literal["a", "b"]], st.sampled_from([[], ["a"], ["b"], ["a", "b"]])),
    "either": (int | str, st.integers() | TEXTS.filter(lambda text: text.casefold() != "null")),
    "object": ({"x": int, "y": [str]}, st.fixed_dictionaries({"x": st.integers(), "y": st.lists(TEXTS, max_size=2)})),
}

DTYPES = {
    "text": TEXT,
    "small": "Int64",
    "number": "Float64",
    "bool": "boolean",
    "label": "category",
    "date": "datetime64[us]",
    "list": "object",
    "labels": "object",
    "either": "object",
    "object": "object",
}


@st.composite
def forms(
    draw: st.DrawFn, kinds: tuple[str, ...] = tuple(FIELDS)
) -> tuple[dict[str, str], Form, st.SearchStrategy[Any]]:
    """The kinds of some fields, their form, and what fills it in."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=lambda name: "".join(name.casefold().split("_"))))
    declared, filled, chosen = {}, {}, {}
    for name in names:
        chosen[name] = draw(st.sampled_from(kinds))
        kind, values = FIELDS[chosen[name]]
        may_be_null = draw(st.booleans()) and not isinstance(kind, list | dict)
        declared[name] = kind | None if may_be_null else kind
        filled[name] = st.none() | values if may_be_null else values
    return chosen, form(declared), st.fixed_dictionaries(filled)


def same(one: Any, other: Any) -> bool:
    """Whether two filled forms are the same; a moment may be written with Z or +00:00."""
    one, other = (json.dumps(value, sort_keys=True).replace("+00:00", "Z") for value in (one, other))
    return bool(one == other)


@ENOUGH
@given(data=st.data(), made=forms())
def test_what_is_written_is_read(data: Any, made: Any) -> None:
    """Every filled form comes back from its text, from a fence and from the middle of prose, as often as one likes."""
    _, one, values = made
    value = data.draw(values)
    read = one.read(one.text(value))
    if all(inner is None for inner in value.values()):
        assert read in (None, value)
        return
    assert read is not None
    assert same(read, value)
    assert one.read(one.text(read)) == read
    assert one.read(f"```json\n{one.text(read)}\n```") == read


@ENOUGH
@given(data=st.data(), made=forms(tuple(DTYPES)))
def test_columns_have_their_types_whatever_is_missing(data: Any, made: Any) -> None:
    """All rows, some or none may be missing: the dtypes are those of the form, and the cells those of the rows."""
    kinds, one, values = made
    rows = data.draw(st.lists(st.none() | values, max_size=4))
    texts = Texts(len(rows))
    for place, row in enumerate(rows):
        texts[place] = None if row is None else one.text(row)
    found = frame(one, texts, pd.Index([1] * len(rows)))
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == {
        name: str(pd.api.types.pandas_dtype(DTYPES[kind])) for name, kind in kinds.items()
    }
    for name, kind in kinds.items():
        said = [None if row is None else row[name] for row in rows]
        cells = found[name]
        assert [one is None for one in said] == cells.isna().tolist()
        if kind != "date":
            assert [cell for cell in cells if not (pd.api.types.is_scalar(cell) and pd.isna(cell))] == [
                value for value in said if value is not None
            ]


@ENOUGH
@given(data=st.data(), made=forms(), n=st.integers(1, 4))
def test_agreement_is_a_share_and_says_what_agreed_says(data: Any, made: Any, n: int) -> None:
    """It is in [0, 1]; where all say the same it is 1, and then all fields are agreed on."""
    _, one, values = made
    several = data.draw(st.lists(st.none() | values, min_size=1, max_size=4))
    assert 0 <= one.agreement(several) <= 1
    value = data.draw(values)
    assert one.agreement([value] * n) == pytest.approx(1.0)
    read = [value for value in several if value is not None]
    agreed = one.agreed(read)
    assert all(agreed[name] == read[0][name] for name in agreed)
    if n > 1:
        assert one.agreed([value] * n) == value
        assert one.voted([value] * n) == value
    if len(agreed) == len(one.names) and len(read) == len(several):
        assert one.agreement(several) == pytest.approx(1.0)
    if read:
        assert all(any(one.voted(read)[name] == row[name] for row in read) for name in one.names)


def test_a_label_that_is_none_is_answered_with_those_that_are() -> None:
    """What an agent is told of a wrong label names the labels; of other forms, that an object is missing."""
    assert form({"mood": ["good", "bad"]}).mistakes("So so.") == (
        "there is no JSON object in the answer; it should be one of good, bad"
    )
    assert form({"n": int, "why": str}).mistakes("So so.") == "there is no JSON object in the answer"
