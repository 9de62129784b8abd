"""From what a model wrote to a value: every kind of parser, the forms it reads, and what it must not read."""

from __future__ import annotations

import functools
import gzip
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_nb.errors import PipelineError
from moa_nb.pipeline.parse import (
    boolean,
    choice,
    correct,
    index,
    label,
    labels,
    number,
    parser,
    probability,
    rating,
    structured,
    verdict,
)
from moa_nb.pipeline.parse.numbers import exact, tidy

DATA = Path(__file__).parents[2] / "shared" / "data"
SPECS = [
    *("number", "number:comma", "choice", "choice:A-J", "verdict", "boolean", "correct", "probability"),
    *("index", "index:3", "rating", "rating:0-1", "json", "json:a", "text", "last line", "label:praise|not a bug|bug"),
    "labels:a|b c",
]
SCRAPS = [
    *("Answer:", "the answer is", "[[", "]]", "[[A]]", "[[10]]", "\\boxed{", "}", "{", '{"a":', '"', "\\", "```json\n"),
    *("```", "**", "####", "\n", " ", "1", "-", ",", ".", "/", "%", "not", "A", "(b)", "Rating: 3/10", "0.5", "yes"),
    *("correct", "Response 2", "½", "−", "１", "٣", "电池", "1e999", "9" * 400, "\x00", "\ud800"),
]
hostile = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(SCRAPS), max_size=40).map("".join))
prefixes = hostile.map(lambda text: text + "\n\n")


@functools.cache
def rows(path: str) -> list[dict[str, Any]]:
    """Return the recorded rows of a file of the shared data."""
    if not (DATA / path).is_file():
        pytest.skip(f"no recorded data at {DATA / path}")
    with gzip.open(DATA / path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# Every parser ------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
@given(text=hostile)
def test_no_text_breaks_a_parser(spec: str, text: str) -> None:
    """Whatever a model writes, a parser returns a value or ``None``, and the same one again."""
    parse = parser(spec)
    first, second = parse(text), parse(text)
    assert first == second


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_is_no_answer(spec: str) -> None:
    """An empty text and white space abstain."""
    assert [parser(spec)(text) for text in ("", " \n\t ", "\u3000")] == [None, None, None]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("scrap", SCRAPS)
def test_long_texts_end(spec: str, scrap: str) -> None:
    """A text of 40,000 characters that repeats one form is read like any other: nothing is quadratic or too deep."""
    parser(spec)(scrap * (40_000 // len(scrap)))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nummer", "did you mean 'number'"),
        ("choise:A-E", "did you mean 'choice'"),
        ("choice:E-A", "choice:A-E"),
        ("choice:A", "choice:A-E"),
        ("verdict:1-3", "verdict:A-C"),
        ("rating:ten", "rating:1-10"),
        ("rating:10-1", "rating:1-10"),
        ("label", "label:praise|bug"),
        ("label:a|", "each label once"),
        ("labels:a|A", "each label once"),
        ("json:", "json:keep,end"),
        ("index:0", "index:6"),
        ("number:de", "number:comma"),
        ("boolean:x", "takes nothing after a colon"),
        ("", "no parser ''"),
        (["a", 1], "each label once"),
        ([], "each label once"),
        (7, "declared as text"),
    ],
)
def test_a_wrong_declaration_is_one_line_that_names_the_right_one(spec: Any, said: str) -> None:
    """A parser that cannot be is found before any call, with the nearest right form."""
    with pytest.raises(PipelineError) as raised:
        parser(spec)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_declarations_are_forgiving_where_nothing_is_lost() -> None:
    """Spaces, capitals and underscores are no mistakes; functions are parsers; ``None`` takes the text as it is."""
    assert parser(" Choice : a-d ")("(D)") == "D"
    assert parser("last_line")("a\nb\n") == "b"
    assert parser(len)("four") == 4
    assert parser(None)(" text ") == "text"
    assert parser(["bug", "praise"])("praise!") == "praise"


# Numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("-5", -5),
            ("−5", -5),
            ("–5", -5),
            ("It is minus 5 degrees", -5),
            ("-$5.50", -5.5),
            ("$-5", -5),
            ("x=-5", -5),
        ),
        *(("16-7=9", 9), ("16 - 7 is 9", 9), ("so 12 - 5", None), ("GPT-4", None), ("H2O", None), ("x^2", None)),
        *(("1,000", 1000), ("1,234,567.89", 1234567.89), ("1.000,50", 1000.5), ("1.234.567", 1234567), ("1.000", 1)),
        *(("1 000", 1000), ("12\u202f345,6", 12345.6), ("1'000'000", 1_000_000), ("1{,}000", 1000), ("0,125", 0.125)),
        *(("3,14", 3.14), ("1,2,3", None), ("1.2.3", None), ("12:30", None), ("9/11/2001", None), ("5 ± 1", 5)),
        *(("18", 18), ("18.0", 18), ("18.", 18), (".5", 0.5), ("0.10", 0.1), ("0.1 + 0.2 = 0.3", 0.3)),
        *(("3/4", 0.75), ("36/2", 18), ("1 1/2", 1.5), ("-1 1/2", -1.5), ("2½", 2.5), ("3/0", None), ("5 / 2.5", 2.5)),
        *(
            ("\\frac{3}{4}", 0.75),
            ("1\\dfrac{1}{2}", 1.5),
            ("\\boxed{\\frac{-1}{2}}", -0.5),
            ("$-\\frac{1}{2}$", -0.5),
            ("-½", -0.5),
            ("$\\boxed{-18}$", -18),
        ),
        *(
            ("50%", 50),
            ("12.5 percent", 12.5),
            ("$1,200.50", 1200.5),
            ("€ 5", 5),
            ("5km", 5),
            ("the 3rd", 3),
            ("共18个", 18),
        ),
        *(
            ("1.2e-3", 0.0012),
            ("1.2 × 10^{-3}", 0.0012),
            ("10³", 1000),
            ("10^3", 1000),
            ("2^10", 1024),
            ("1e400", None),
        ),
        *(("5k", 5000), ("3 million", 3_000_000), ("$1.2 billion", 1_200_000_000), ("9" * 400, None), ("１８", 18)),
        *(
            ("3-4", None),
            ("3 to 4", None),
            ("between 3 and 4", None),
            ("between 3 km and 4 km", None),
            ("3 or 4", None),
        ),
        *(("5 apples and 3 pears", 3), ("no number", None), ("٣", None), ("twelve", None)),
    ],
)
def test_a_number_is_read_as_a_person_reads_it(text: str, value: float | None) -> None:
    """Signs, thousands, decimals, fractions, powers, percent, currency and units; what is no number abstains."""
    assert number(text) == value
    assert type(number(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 18 dollars, from 9 eggs.", 18),
        ("Answer: 16 - 7 = 9", 9),
        ("**Answer:** $18.00\nShe has 16 eggs.", 18),
        ("Final answer\n\n42\n\nI used 3 steps.", 42),
        ("#### 42\nChecked 2 times.", 42),
        ("#### Step 1\nSo it is 7", 7),
        ("#### 1. Compute\nSo it is 7", 7),
        ("\\boxed{41} is wrong; \\boxed{42}. The answer is 7", 42),
        ("They pay **$64** for the 16 glasses", 64),
        ("**Step 2** gives 9, **2. Sum:** 12", 12),
        ("The answer is not 41 but 42.", 42),
        ("The answer is between 3 and 4, after 9 tries", None),
        ("The answer is 3 or 4.", None),
        ("The answer is 42. Is that answer right? 1 check.", 42),
        ("答案：１８", 18),
        ("That is 4.567, and 4.567 rounds to 4.57", 4.57),
        ("2 times 5 comes to 10", 10),
        ("It rose from 5 km to 10 km", None),
    ],
)
def test_the_stated_answer_comes_before_the_last_number(text: str, value: float | None) -> None:
    """An explicit statement beats the numbers around it; an ambiguous one abstains."""
    assert number(text) == value


def test_the_comma_can_be_declared_the_decimal_point() -> None:
    """``number:comma`` turns round what 1.000 and 1,000 are, and leaves what has one reading."""
    parse = parser("number:comma")
    assert [parse(text) for text in ("1.000", "1,000", "1.000,50", "3,14", "1,000.50")] == [
        1000,
        1,
        1000.5,
        3.14,
        1000.5,
    ]


@given(
    st.integers(-(10**30), 10**30), st.sampled_from(["{}", "{:,}", "{}.0", "{}.", "${}", "\\boxed{{{:,}}}", "= {} km"])
)
def test_a_whole_number_survives_every_spelling(value: int, spelling: str) -> None:
    """Sign, thousands and size come through, and a whole number is an ``int``."""
    found = number(spelling.format(value))
    assert found == value
    assert isinstance(found, int)


@given(st.decimals(-(10**9), 10**9, places=6))
def test_a_decimal_is_the_nearest_float(value: Any) -> None:
    """No arithmetic loses a digit on the way."""
    assert number(f"It is {value:f}") == float(value)
    assert exact(f"{value:f}") == Fraction(value)


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_is_the_nearest_float(value: Fraction) -> None:
    """Numerator over denominator is divided exactly."""
    assert number(f"\\boxed{{{value.numerator}/{value.denominator}}}") == tidy(value)


@given(prefixes, st.integers(-(10**9), 10**9))
def test_a_boxed_number_is_found_after_any_text(prefix: str, value: int) -> None:
    """What comes before the last box, boxes included, changes nothing."""
    assert number(f"{prefix}The answer is \\boxed{{{value}}}.") == value


@pytest.mark.parametrize("model", ["6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"])
def test_real_answers_are_read_as_their_authors_meant_them(model: str) -> None:
    """Of 660 real answers with a final line, every one is right or wrong as its record says."""
    for row in rows("gsm8k_six_models/first_660.jsonl.gz"):
        value = number(row[model]["solution"])
        gold = number(str(row["gold"]))
        assert gold is not None
        is_right = value is not None and math.isclose(value, gold)
        assert is_right == row[model]["is_correct"], row["index"]


# Choices, labels, yes and no ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *(
            ("B", "B"),
            ("(B)", "B"),
            ("B.", "B"),
            ("B) Paris", "B"),
            ("**B**", "B"),
            ("(b)", "B"),
            ("b", None),
            ("Ｂ", "B"),
        ),
        *(("Answer: B", "B"), ("**Answer**\nB", "B"), ("the answer is B because A is wrong", "B"), ("Answer: A", "A")),
        *(
            ("The correct answer is option C: Rome", "C"),
            ("\\boxed{\\text{D}}", "D"),
            ("[[E]]", "E"),
            ("答案：Ｂ", "B"),
        ),
        *(("The answer is (A), not (B)", "A"), ("The answer is not A but B", "B"), ("B is correct; A is not.", "B")),
        *(("(A) no. (B) no.\nSo (C)", "C"), ("A. x\nB. y\nC. z", None), ("A. x\nB. y\nC. z\n\nB", "B"), ("F", None)),
        *(("A dog is here", None), ("Answer: A dog barks", None), ("Vitamin C helps", None), ("Plan B failed", None)),
        *(("Both A and B", None), ("Answer: B or C", None), ("I choose D", "D"), ("It is not (B)", None)),
        ("The answer is A. On second thought, the answer is B.", "B"),
        ("The answer is (A) as I will show: B and C fail.", "A"),
    ],
)
def test_a_choice_is_what_the_text_decides_for(text: str, letter: str | None) -> None:
    """The last explicit statement, a letter that stands out, or none; never an article."""
    assert choice(text) == letter


@given(prefixes, st.sampled_from("ABCDE"), st.sampled_from(["\\boxed{{{}}}", "[[{}]]"]))
def test_a_boxed_choice_is_found_after_any_text(prefix: str, letter: str, form: str) -> None:
    """What comes before the last strict form changes nothing."""
    assert choice(f"{prefix}Answer: {form.format(letter)}") == letter


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(("bug", "bug"), ("It's a BUG.", "bug"), ("debugging", None), ("feature-request", "feature request")),
        *(("Not spam", "not spam"), ("spam", "spam"), ("This is not a bug", None), ("bug or praise", None)),
        *(("Label: praise (no bug)", "praise"), ('{"label": "praise"}', "praise"), ("Label: bug or praise", None)),
        *(
            ("Could be bug, could be praise.\nI go for praise", "praise"),
            ("Category: **bug**\nPraise is absent", "bug"),
        ),
        ("The label is bug rather than praise", "bug"),
        ("At first the label is praise. In the end the label is spam.", "spam"),
    ],
)
def test_a_label_is_what_the_text_decides_for(text: str, name: str | None) -> None:
    """Whole words, the longest first, denials left out; several without a decision abstain."""
    assert label(text, ["praise", "bug", "feature request", "spam", "not spam"]) == name


def test_labels_of_scripts_without_spaces_are_found_inside_sentences() -> None:
    """Where no spaces are set, no word's end is asked for."""
    assert label("这是一封垃圾邮件。", ["垃圾邮件", "正常"]) == "垃圾邮件"
    assert label("스팸입니다", ["스팸", "정상"]) == "스팸"


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8), min_size=1, max_size=6))
def test_every_label_is_found_as_it_is_spelt(names: list[str]) -> None:
    """A label alone is itself, in any alphabet, whatever the others are."""
    unique = list({name.casefold(): name for name in names}.values())
    for name in unique:
        assert label(name, unique) in {name, None} | set(unique)
        if name.isascii():
            assert label(f"**{name}**.", unique) == name


@pytest.mark.parametrize(
    ("text", "names"),
    [
        *(
            ("bug, billing", {"bug", "billing"}),
            ("None", set()),
            ("[]", set()),
            ("Labels: none.", set()),
            ("dunno", None),
        ),
        *(('["praise"]', {"praise"}), ("Labels:\n- bug\n- praise\n\nBilling is fine.", {"bug", "praise"})),
        ("It is a bug and no praise", {"bug"}),
    ],
)
def test_several_labels_are_a_set(text: str, names: set[str] | None) -> None:
    """All that the text gives; "none" is an empty set, nothing at all is an abstention."""
    assert labels(text, ["praise", "bug", "billing"]) == names


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("Yes", True),
            ("no.", False),
            ("**Yes**, because", True),
            ("True", True),
            ("Answer: no", False),
            ("y", None),
        ),
        *(
            ("There is no doubt", None),
            ("No evidence suggests so", None),
            ("Yes and no", None),
            ("No. Wait.\nYes.", True),
        ),
    ],
)
def test_yes_and_no_are_statements(text: str, value: bool | None) -> None:
    """A "no" inside a sentence denies something else."""
    assert boolean(text) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("Correct", True), ("Incorrect.", False), ("It is not correct", False), ("wrong", False), ("Hm", None)),
        *(("Verification Decision: The AI generated answer is Correct.", True), ("correct or incorrect?", None)),
        *(
            ("The correct answer is 5, so this is wrong", False),
            ("Verdict: incorrect, since the correct sum is 5", False),
        ),
        ("One might say correct. Verdict: Incorrect", False),
    ],
)
def test_right_and_wrong_are_told_apart(text: str, value: bool | None) -> None:
    """The word "incorrect" does not hold "correct", and the correct value is no judgement."""
    assert correct(text) is value


# Judgements --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("[[8]]", 8), ("[[8.5]]", 8.5), ("[[8/10]]", 8), ("[[11]]", None), ("[[0]]", None), ("[[85]]", None)),
        *(("Rating: 8", 8), ("Rating: 8/10", 8), ("score: 8", 8), ("I give 8 out of 10", 8), ("**8**", 8), ("[8]", 8)),
        *(("4/5", None), ("Rating: 7-8", None), ("80%", None), ("It makes 3 points", None), ("[[A]] [[7]]", 7)),
        *(("Unlike a [[10]], this is [[2]]", 2), ("[[5]], no: [[11]]", None)),
    ],
)
def test_a_rating_is_the_last_in_its_form_and_in_its_range(text: str, value: float | None) -> None:
    """The last tag counts, and out of the range it is rejected, not replaced by an earlier one."""
    assert rating(text) == value


@given(prefixes, st.integers(-20, 30))
def test_a_tagged_rating_is_found_after_any_text(prefix: str, value: int) -> None:
    """A quoted example of the form changes nothing, and the range holds."""
    assert rating(f"{prefix}Rating: [[{value}]]") == (value if 1 <= value <= 10 else None)


def test_real_ratings_are_read_as_recorded() -> None:
    """All 320 recorded judgements give the score that was recorded with them."""
    for row in rows("mt_bench/judgements_routellm.jsonl.gz"):
        assert rating(row["judgment"]) == row["score"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *(("[[A]]", "A"), ("... not [[A]] ... Verdict: [[B]]", "B"), ("[[C]]", "C"), ("[[D]]", None), ("[[b]]", "B")),
        *(("Verdict: B", "B"), ("The final verdict is **C**.", "C"), ("Winner: Assistant B", "B"), ("A", "A")),
        *(("Assistant A is better than B", None), ("Verdict: A tie", None), ("garbage", None)),
    ],
)
def test_a_verdict_is_the_last_in_its_form(text: str, letter: str | None) -> None:
    """Judges quote the form before they use it; prose about the assistants is no verdict."""
    assert verdict(text) == letter


@given(prefixes, st.sampled_from("ABC"))
def test_a_tagged_verdict_is_found_after_any_text(prefix: str, letter: str) -> None:
    """What a judge quotes or says before its verdict changes nothing."""
    assert verdict(f"{prefix}[[{letter}]]") == letter


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("Response 3", 3), ("[[3]]", 3), ("#3", 3), ("3", 3), ("[[Response 2]]", 2), ("The answer is 2", 2)),
        *(("Response 9", None), ("Response 0", None), ("0", None), ("[[-1]]", None), ("of 3 responses none", None)),
        ("Responses 1 and 2 differ; the most consistent is **Response 4**.", 4),
    ],
)
def test_an_index_counts_from_one_and_stays_in_its_range(text: str, value: int | None) -> None:
    """The last response that is named, if there is one of that number."""
    assert index(text, n=5) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("0.85", 0.85),
            ("85%", 0.85),
            ("85 percent", 0.85),
            ("Probability: 0.3, of 5 samples", 0.3),
            ("[[0.5]]", 0.5),
        ),
        *(("1", 1.0), ("0", 0.0), ("1.2", None), ("120%", None), ("-0.1", None), ("likely", None), ("3/4", 0.75)),
    ],
)
def test_a_probability_is_in_its_range(text: str, value: float | None) -> None:
    """Shares and percentages from 0 to 1; anything else abstains."""
    assert probability(text) == value


# JSON --------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
json_texts = json_values.filter(lambda value: isinstance(value, dict | list))


@given(json_texts, st.sampled_from(["{}", "So: {} Done.", "```json\n{}\n```", "```\n{}\n``` Done.", "[see] {}"]))
def test_json_is_found_in_prose(value: Any, around: str) -> None:
    """What was written comes back, fenced or not, whatever its strings hold."""
    text = around.replace("{}", json.dumps(value))
    assert structured(text) == (
        value if isinstance(value, dict) or "[see]" not in around else structured(json.dumps(value))
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('For example {"score": 1}. Mine: {"score": 8}', {"score": 8}),
        ('{"a": [1, 2,],}', {"a": [1, 2]}),
        ('{"a": ",]"}', {"a": ",]"}),
        ('[{"a": 1}, {"b": 2}] as asked [1].', [1]),
        ('```python\n{"a": 1}\n```\n```json\n{"b": 2}\n```', {"b": 2}),
        ('It is 5" wide, {"a": "b"}', {"a": "b"}),
        ('{"a": {"b": 1}', None),
        ('[{"a": 1}, {"b": 2}', None),
        ('{"a": NaN}', None),
        ('{"a": 1e999}', None),
        ("{'a': 1}", None),
        ('{"a": [1}', None),
        ("5", None),
    ],
)
def test_json_is_the_last_that_is_whole(text: str, value: Any) -> None:
    """The last object, else the last array; a part of a broken one is no answer."""
    assert structured(text) == value


def test_json_can_be_asked_for_its_keys() -> None:
    """With keys the last object that has them all counts, and no other."""
    text = '{"keep": [1], "end": false} and {"keep": []} and [2]'
    assert parser("json:keep, end")(text) == {"keep": [1], "end": False}
    assert parser("json:keep,why")(text) is None


@pytest.mark.parametrize("opening", ["[", "{", '{"a":', '["', "[1,", '{"a":[', "[\n"])
def test_json_that_never_closes_is_none(opening: str) -> None:
    """Depth and length overflow nothing."""
    assert structured(opening * 50_000) is None
    assert structured("[" * 5000 + "]" * 5000) is None


def test_a_declared_parser_can_be_kept_and_called() -> None:
    """A parser is a plain function of one text."""
    parse: Callable[[str], Any] = parser("rating:0-1")
    assert [parse(text) for text in ("[[0.5]]", "[[2]]")] == [0.5, None]
