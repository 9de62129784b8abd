"""What is seen of a comparison of pipelines: the answer, the figures, who stands on the front, and what nobody can say."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import nh3
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_panels import ATTRIBUTES, HOSTILE, PANEL_TAGS, RENDERED_TAGS, TEXTS, Tags, assert_harmless

from moa_nb.errors import SetupError
from moa_nb.evaluation import Evaluation
from moa_nb.evaluation.front import front
from moa_nb.evaluation.picture import picture
from moa_nb.evaluation.shown import view_of as shown_of
from moa_nb.panels.evaluation import bundle, scatter, words
from moa_nb.panels.evaluation.answer import headline
from moa_nb.panels.evaluation.view import DifferenceView, EvaluationView, JudgeView, PairView, PipelineView
from moa_nb.panels.markdown import to_html

FORMS = {"text/html", "text/markdown", "text/plain"}
OWN = ATTRIBUTES | {"class", "open", "colspan", "role", "aria-label", "aria-hidden"}
HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def pipeline(name: str, quality: float | None, cost: float | None, seconds: float | None, **more: Any) -> PipelineView:
    """Return a pipeline judged on 40 rows, its interval a tenth to either side."""
    figures: dict[str, Any] = {
        "low": None if quality is None else quality - 0.1,
        "high": None if quality is None else quality + 0.1,
        "n_judged": 0 if quality is None else 40,
        "cost_per_row": cost,
        "cost": None if cost is None else 40 * cost,
        "seconds_per_row": seconds,
        "prompt_tokens_per_row": 412.0,
        "completion_tokens_per_row": 180.0,
        "n_calls": 80,
        **more,
    }
    return PipelineView(name, quality, **figures)


def with_fronts(pipelines: Sequence[PipelineView]) -> tuple[PipelineView, ...]:
    """Return the pipelines, each knowing whether it is on the fronts."""
    qualities = [one.quality for one in pipelines]
    by_cost = front([one.cost_per_row for one in pipelines], qualities)
    by_time = front([one.seconds_per_row for one in pipelines], qualities)
    return tuple(
        replace(one, on_cost_front=cost, on_time_front=time)
        for one, cost, time in zip(pipelines, by_cost, by_time, strict=True)
    )


def won(pipelines: Sequence[PipelineView]) -> tuple[PairView, ...]:
    """Return a pair for any two pipelines."""
    return tuple(
        PairView(
            one.name, other.name, min(1.0, max(0.0, 0.5 + (one.quality or 0) - (other.quality or 0))), 40, place % 3
        )
        for place, (one, other) in enumerate(itertools.combinations(pipelines, 2))
    )


def board(**changes: Any) -> EvaluationView:
    """Return a comparison in which moa is better than single, and self-moa is worth nobody's money."""
    pipelines = with_fronts(
        [
            pipeline("single", 0.38, 0.0021, 2.1),
            pipeline("moa-lite", 0.55, 0.0079, 5.2, n_degraded=1),
            pipeline("moa", 0.62, 0.0123, 8.4, n_failed=2, n_degraded=3),
            pipeline("self-moa", 0.49, 0.0131, 6.0),
        ]
    )
    view = EvaluationView(
        column="question",
        rows=40,
        pipelines=pipelines,
        pairs=won(pipelines),
        differences=(
            DifferenceView("moa", "single", 0.24, 0.12, 0.36, 0.0004, 40, 0.001),
            DifferenceView("moa-lite", "moa", -0.07, -0.17, 0.03, 0.19, 40, 0.38),
            DifferenceView("self-moa", "single", 0.11, 0.0, 0.22, 0.03, 40, 0.09),
        ),
        judges=(JudgeView("lab:judge", 480, 6, 0.129, 237, 0.526, 0.68, 205, 0.9, 20, 0.71, 60),),
        reservations=("Part of moa's lead may be length.",),
        unsaid=("How they fare on rows unlike these.", "Whether moa is better than moa-lite."),
        answers_cost=2.1,
        answers_saved=0.5,
        judging_cost=0.84,
        judging_saved=0.1,
        judging_calls=486,
        judging_cached=40,
        seconds=41.2,
        notes=("Rows without an answer count as lost.",),
    )
    return replace(view, **changes)


def many(n: int, said: str = "pipeline") -> EvaluationView:
    """Return a comparison of ``n`` pipelines."""
    pipelines = with_fronts(
        [pipeline(f"{said} {at}", 0.2 + 0.6 * (at * 7 % n) / n, 0.001 * 1.3**at, 1.0 + at * 5 % n) for at in range(n)]
    )
    return board(pipelines=pipelines, pairs=won(pipelines), differences=())


def texts(view: EvaluationView) -> dict[str, str]:
    """Return what each form says, without what only makes it a form."""
    shown = bundle(view)
    rendered = Tags(to_html(shown["text/markdown"], limit=1_000_000)).text
    return {
        "html": Tags(shown["text/html"]).text,
        "markdown": rendered.replace("USD ", "$"),
        "plain": " ".join(shown["text/plain"].split()),
    }


# The front ----------------------------------------------------------------------------------------

AMOUNTS = st.one_of(st.none(), st.just(math.nan), st.integers(0, 6).map(float), st.floats(0, 10))


@settings(deadline=None)
@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), max_size=12))
@example([(1.0, 1.0), (1.0, 1.0), (0.0, None), (None, 9.0)])
def test_the_front_is_what_its_definition_says(points: list[tuple[float | None, float | None]]) -> None:
    """Nobody on it is beaten, everybody off it is beaten or unknown, and whoever is off is beaten by one who is on."""

    def is_known(point: tuple[float | None, float | None]) -> bool:
        return all(value is not None and not math.isnan(value) for value in point)

    def beats(one: Any, other: Any) -> bool:
        return one[0] <= other[0] and one[1] >= other[1] and (one[0] < other[0] or one[1] > other[1])

    on = front([cost for cost, _ in points], [quality for _, quality in points])
    known = [point for point in points if is_known(point)]
    expected = [is_known(point) and not any(beats(other, point) for other in known) for point in points]
    assert on == expected
    ahead = [point for point, is_on in zip(points, on, strict=True) if is_on]
    assert bool(ahead) == bool(known)
    for point, is_on in zip(points, on, strict=True):
        if is_known(point) and not is_on:
            assert any(beats(other, point) for other in ahead)


@settings(deadline=None)
@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=8), st.randoms())
def test_the_front_does_not_depend_on_the_order(points: list[Any], random: Any) -> None:
    """Whoever is on the front is on it wherever in the list it stands."""
    places = [*range(len(points))]
    random.shuffle(places)
    on = front(*zip(*points, strict=True))
    assert front(*zip(*[points[place] for place in places], strict=True)) == [on[place] for place in places]


def test_the_front_takes_what_frames_hold() -> None:
    """Columns with ``pd.NA`` are taken as they are."""
    table = pd.DataFrame({"cost": [0.0, 1.0, None], "quality": [0.1, None, 0.9]}, dtype="Float64")
    assert front(table["cost"], table["quality"]) == [True, False, False]


def test_a_front_needs_as_many_costs_as_qualities() -> None:
    """One line says what does not fit."""
    with pytest.raises(SetupError, match="2 costs, 1 qualities"):
        front([1.0, 2.0], [0.5])


# The view -----------------------------------------------------------------------------------------


def test_a_pair_and_a_difference_read_both_ways() -> None:
    """What is said of one against another is said of the other against the one, turned round."""
    view = board()
    made, turned = view.difference("moa", "single"), view.difference("single", "moa")
    assert made is not None
    assert turned == DifferenceView("single", "moa", -0.24, -0.36, -0.12, 0.0004, 40, 0.001)
    one, other = view.pair("moa", "single"), view.pair("single", "moa")
    assert one is not None
    assert other is not None
    assert one.share is not None
    assert other.share == pytest.approx(1 - one.share)
    assert (one.n, one.ties) == (other.n, other.ties)
    assert view.pair("moa", "nobody") is None
    assert view.difference("moa", "nobody") is None


def test_the_best_stands_first_and_the_unknown_last() -> None:
    """Pipelines are shown by quality; the first one named is the baseline unless another is named."""
    view = board(pipelines=(pipeline("none", None, 1, 1), pipeline("low", 0.1, 1, 1), pipeline("high", 0.9, 1, 1)))
    assert [one.name for one in view.ranked] == ["high", "low", "none"]
    assert view.against is not None
    assert view.against.name == "none"
    low = replace(view, baseline="low").against
    assert low is not None
    assert low.name == "low"


def test_the_cost_is_the_sum_of_its_parts_or_unknown() -> None:
    """Answers and judging make the whole; one unknown price makes it unknown."""
    assert board().cost == pytest.approx(2.94)
    assert board(judging_cost=None).cost is None
    assert board(answers_cost=None).cost is None


def compared() -> Evaluation:
    """Return twelve rows of two: two ties of equal answers, three flips, six rows for the longer one, one for the other."""
    answers = pd.DataFrame({"short": ["same"] * 2 + ["brief"] * 10, "long": ["same"] * 2 + ["at length"] * 10})
    lines = [
        (row, *pair, "lab:j", "A" if row < 5 or (pair[0] == "long") == (row < 11) else "B")
        for row in range(2, 12)
        for pair in (("short", "long"), ("long", "short"))
    ]
    judgements = pd.DataFrame(lines, columns=["row", "first", "second", "judge", "verdict"])
    figures = pd.DataFrame(
        {"cost": [0.01, 0.02], "total_cost": [0.12, 0.24], "seconds": [5.0, 1.0], "degraded": [0, 2]},
        index=["short", "long"],
    )
    return Evaluation(answers, "points", judgements, figures=figures, column="question")


def test_the_view_is_of_the_evaluation() -> None:
    """Ties, flips, wins of the longer answer, degraded rows and both fronts are those of the rows."""
    view = shown_of(compared())
    [pair], [judge], [test] = view.pairs, view.judges, view.differences
    assert pair == PairView("short", "long", pytest.approx(3.5 / 12), 12, 5)
    assert (test.by, test.n) == (pytest.approx(-5 / 12), 12)
    assert (judge.model, judge.n_verdicts, judge.n_unreadable) == ("lab:j", 20, 0)
    assert (judge.flip_rate, judge.n_swapped) == (pytest.approx(3 / 10), 10)
    assert (judge.longer_wins, judge.n_unequal) == (pytest.approx(6 / 7), 7)
    assert judge.first_wins == pytest.approx(13 / 20)
    short, long = view.pipelines
    assert (short.cost_per_row, short.cost, short.seconds_per_row, short.n_degraded) == (0.01, 0.12, 5.0, 0)
    assert (long.cost_per_row, long.cost, long.seconds_per_row, long.n_degraded) == (0.02, 0.24, 1.0, 2)
    assert (short.on_cost_front, short.on_time_front) == (True, False)
    assert (long.on_cost_front, long.on_time_front) == (True, True)


# The answer ---------------------------------------------------------------------------------------


def pair_of(one: PipelineView, two: PipelineView, *made: DifferenceView, **changes: Any) -> EvaluationView:
    """Return a comparison of two pipelines, the first of which is the baseline."""
    return board(pipelines=with_fronts([one, two]), differences=made, **changes)


SINGLE, MOA = pipeline("single", 0.4, 0.002, 2.0), pipeline("moa", 0.6, 0.012, 6.0)

ANSWERS = {
    "settled": (
        pair_of(SINGLE, MOA, DifferenceView("moa", "single", 0.2, 0.1, 0.3, 0.001, 40)),
        "moa is better than single: it wins 0.60 of the points (0.55 to 0.65) against it on 40 rows, at 6 times its price and 3 times its time.",
    ),
    "either way round": (
        pair_of(SINGLE, MOA, DifferenceView("single", "moa", -0.2, -0.3, -0.1, 0.001, 40)),
        "moa is better than single: it wins 0.60 of the points (0.55 to 0.65) against it on 40 rows, at 6 times its price and 3 times its time.",
    ),
    "not settled": (
        pair_of(SINGLE, MOA, DifferenceView("moa", "single", 0.2, -0.1, 0.5, 0.2, 12)),
        (
            "Whether moa is better than single is not settled by 12 rows: it wins 0.60 of the points (0.45 to 0.75) against it, "
            "at 6 times its price and 3 times its time."
        ),
    ),
    "settled only until corrected": (
        pair_of(SINGLE, MOA, DifferenceView("moa", "single", 0.2, 0.01, 0.39, 0.04, 12, 0.12)),
        "Whether moa is better than single is not settled by 12 rows",
    ),
    "not tested": (
        pair_of(SINGLE, MOA),
        (
            "moa is ahead of single by 0.20 of the points, at 6 times its price and 3 times its time; "
            "whether that is more than chance was not tested."
        ),
    ),
    "no row of both": (
        pair_of(SINGLE, MOA, DifferenceView("moa", "single", -0.1, -0.2, -0.01, 0.01, 9)),
        (
            "moa has the highest mean of its own rows, yet is worse than single by 0.10 of the points (−0.20 to −0.01) "
            "on the 9 rows of both"
        ),
    ),
    "cheaper": (
        pair_of(SINGLE, replace(MOA, cost_per_row=0.0008, seconds_per_row=None)),
        "moa is ahead of single by 0.20 of the points, at 40 % of its price; ",
    ),
    "free beside paid": (pair_of(SINGLE, replace(MOA, cost_per_row=0.0)), "free where the other takes $0.0020 a row"),
    "paid beside free": (pair_of(replace(SINGLE, cost_per_row=0.0), MOA), "at $0.0120 a row where the other is free"),
    "both free": (pair_of(replace(SINGLE, cost_per_row=0.0), replace(MOA, cost_per_row=0.0)), "free like the other"),
    "unknown": (pair_of(SINGLE, replace(MOA, cost_per_row=None)), "at a price that cannot be compared"),
    "at least": (pair_of(SINGLE, replace(MOA, cost_is_at_least=True)), "at at least 6 times its price"),
    "a metric": (pair_of(SINGLE, MOA, measure="metric", metric="ROUGE-L"), "ahead of single by 0.20 in ROUGE-L"),
    "the baseline is best": (
        pair_of(replace(SINGLE, quality=0.7), MOA, DifferenceView("moa", "single", -0.1, -0.2, 0.0, 0.07, 40)),
        "None is better than single: the nearest, moa, is behind by 0.10, which these rows do not settle.",
    ),
    "level": (pair_of(SINGLE, replace(MOA, quality=0.4)), "single and moa are level."),
    "one alone": (
        board(pipelines=(MOA,)),
        "moa alone: 0.60 of the points (0.50 to 0.70) on 40 rows, at $0.0120 a row. Nothing stands beside it.",
    ),
    "no verdict": (
        pair_of(replace(SINGLE, quality=None), replace(MOA, quality=None)),
        "Nothing could be judged, so nothing is said of quality; prices and seconds stand below.",
    ),
    "nobody": (board(pipelines=()), "No pipeline was compared."),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_the_answer_stands_on_top_in_every_form(case: str) -> None:
    """What is better, by how much, how surely and at what price is one sentence, the same in every form."""
    view, expected = ANSWERS[case]
    assert expected in " ".join(headline(view))
    for said in texts(view).values():
        for sentence in headline(view):
            assert sentence in said


def test_who_is_as_good_for_less_is_said() -> None:
    """A cheaper pipeline that is not shown to be worse is named, and who is beaten by nobody for the price."""
    _, cheaper, ahead = headline(board())
    assert cheaper == "moa-lite is not shown to be worse than moa, at 64 % of its price."
    assert ahead == "For the price nothing here beats single, moa-lite and moa."


# Every form ---------------------------------------------------------------------------------------


def test_every_form_says_the_same() -> None:
    """Each sentence and each figure of the view stands in HTML, Markdown and plain text alike."""
    view = board()
    assert set(bundle(view)) == FORMS
    for said in texts(view).values():
        for sentence in (*headline(view), *view.reservations, *view.notes, words.about(view)):
            assert sentence in said
        for title, brief, sentences in words.sections(view):
            assert title in said
            assert brief in said
            for sentence in sentences:
                assert sentence in said
        for one in view.pipelines:
            for figure in (
                one.name,
                words.number(one.quality),
                words.interval(one.low, one.high),
                words.dollars(one.cost_per_row, sign=""),
                words.dollars(one.cost, sign=""),
                words.tokens(one),
            ):
                assert figure in said
        for pair in view.pairs:
            turned = view.pair(pair.other, pair.one)
            assert words.pair_in_words(pair) in said
            assert words.pair_in_words(turned) in said


def test_the_judge_is_judged() -> None:
    """Flips, preferences, unreadable verdicts and agreement with people are told, each with what it is of."""
    [judge] = board().judges
    assert words.judge_in_words(judge) == [
        "lab:judge: 480 verdicts, 6 of them unreadable.",
        "13 % of 237 pairs shown in both orders flipped when the answers changed places.",
        "The answer shown first won 53 % of the verdicts with a winner.",
        "The longer answer won 68 % of 205 pairs of unequal length.",
        "Its own answer won 90 % of 20 pairs with an answer by the judge's own model.",
        "Agreement with people, Cohen's kappa on 60 of their labels: 0.71.",
    ]
    assert (
        words.judging_in_brief(board())
        == "13 % of pairs flipped, the longer answer won 68 % of 205, 6 verdicts unreadable"
    )


def test_what_concerns_the_answer_is_not_folded() -> None:
    """Reservations stand below the answer, above the table; what else cannot be said opens."""
    page = bundle(board())["text/html"]
    assert page.index("Part of moa&#39;s lead may be length.") < page.index("<table") < page.index("<details")
    assert page.index("How they fare on rows unlike these.") > page.index("<details")


def test_who_has_no_place_in_a_picture_is_named() -> None:
    """An unknown price or time and a missing quality leave a pipeline out of a picture, which says so."""
    more = (pipeline("mystery", 0.5, None, 3.0), pipeline("broken", None, 0.1, 0.1))
    view = board(pipelines=(*board().pipelines, *more))
    page = texts(view)["html"]
    broken = "broken, of which nothing could be judged."
    assert f"Not in the picture: mystery, whose price is unknown; {broken}" in page
    assert f"Not in the picture: {broken}" in page
    assert "mystery: 0.50, 3.0 s a row" in page
    assert "mystery: 0.50, unknown" not in page


# Missing values -----------------------------------------------------------------------------------


def emptied(one: Any) -> list[Any]:
    """Return copies of a view's part, each without one of the values that may be missing."""
    return [replace(one, **{field.name: None}) for field in fields(one) if "None" in str(field.type)]


def test_a_missing_value_is_unknown_and_never_zero() -> None:
    """Whatever may be missing is missing once: the panel is drawn, and no form says ``None`` or ``nan``."""
    view = board()
    views = emptied(view)
    for at, one in enumerate(view.pipelines):
        for less in emptied(one):
            views.append(replace(view, pipelines=(*view.pipelines[:at], less, *view.pipelines[at + 1 :])))
    views += [replace(view, pairs=(less, *view.pairs[1:])) for less in emptied(view.pairs[0])]
    views += [replace(view, differences=(less,)) for less in emptied(view.differences[0])]
    views += [replace(view, judges=(less,)) for less in emptied(view.judges[0])]
    views.append(EvaluationView("q", 0, ()))
    views.append(EvaluationView("q", 3, (PipelineView("a"), PipelineView("b"))))
    assert len(views) > 40
    for each in views:
        for said in texts(each).values():
            assert "None" not in said.replace("None is better", "")
            assert not re.search(r"\bnan\b", said, re.IGNORECASE)
    unknown = replace(view, pipelines=(PipelineView("a", 0.5), PipelineView("b", 0.4)))
    for said in texts(unknown).values():
        assert "unknown" in said


@pytest.mark.parametrize("n", [1, 2, 7, 20, 60])
def test_any_number_of_pipelines_is_readable(n: int) -> None:
    """One pipeline and sixty are shown within 200 kB, each by name or counted."""
    shown = bundle(many(n))
    assert len(shown["text/html"].encode()) < 200_000
    page = texts(many(n))["html"]
    for one in many(n).ranked[:20]:
        assert one.name in page
    assert ("more pipelines, left out here" in page) == (n > 21)
    assert_harmless(shown["text/html"], PANEL_TAGS, OWN)
    assert len(shown["text/plain"].split("\n")) < 110


# Hostile text -------------------------------------------------------------------------------------

LONG = "x" * 30_000


def full_of(said: str) -> EvaluationView:
    """Return a view in which everything that can be text is ``said``."""
    names = [f"{said}{at}" for at in range(3)]
    pipelines = tuple(replace(one, name=name) for one, name in zip(board().pipelines, names, strict=False))
    return board(
        column=said,
        pipelines=(*pipelines, pipeline(said, 0.5, None, None), pipeline(said, None, 0.1, 0.1)),
        measure="metric",
        metric=said,
        baseline=names[0],
        reservations=(said,) * 3,
        pairs=won(pipelines),
        differences=(DifferenceView(names[2], names[0], 0.2, 0.1, 0.3, 0.01, 40, 0.02),) * 2,
        judges=(replace(board().judges[0], model=said),) * 2,
        reference=said,
        unsaid=(said,) * 60,
        notes=(said,),
    )


@pytest.mark.parametrize(
    "said", [HOSTILE, LONG, HOSTILE * 200, "a|b\n\n# c\n| d |", "$x$ \\(y\\)", "\u202eabc\u2066", ""]
)
def test_hostile_text_is_inert_in_every_form(said: str) -> None:
    """Tags, Markdown, escapes, overrides and huge lines in every name and sentence do nothing and break nothing."""
    shown = bundle(full_of(said))
    assert_harmless(shown["text/html"], PANEL_TAGS, OWN)
    for tag in ("div", "table", "span", "details"):
        assert shown["text/html"].count(f"<{tag}") == shown["text/html"].count(f"</{tag}>")
    assert not HIDDEN.search(shown["text/html"])
    assert not HIDDEN.search(shown["text/plain"])
    assert len(shown["text/html"].encode()) < 300_000
    assert_harmless(to_html(shown["text/markdown"]), RENDERED_TAGS | PANEL_TAGS, OWN)
    # A table keeps its lines: as many as there are rows, whatever stands in the cells.
    assert shown["text/markdown"].count("\n|") == bundle(full_of("plain"))["text/markdown"].count("\n|")


@given(TEXTS)
@settings(deadline=None, max_examples=60)
def test_any_text_is_inert(said: str) -> None:
    """Whatever names and sentences are, the panel has its own tags alone."""
    shown = bundle(full_of(said))
    assert_harmless(shown["text/html"], PANEL_TAGS, OWN)
    assert set(Tags(shown["text/html"]).tags) == set(Tags(bundle(full_of("plain"))["text/html"]).tags)
    assert not HIDDEN.search(shown["text/plain"])


def test_a_sanitised_panel_still_reads() -> None:
    """Without a style left, the answer, each row's figures, each point and each pair stand there as text."""
    clean = nh3.clean(bundle(board())["text/html"], attributes={})
    assert "style" not in clean
    said = Tags(clean).text
    assert headline(board())[0] in said
    assert "moa: 0.62, $0.0123 a row, on the front" in said
    assert "self-moa: 0.49, 6.0 s a row" in said
    assert re.search(r"0\.62 0\.52 to 0\.72 0\.0123 5\.9× 8\.4 4\.0×", said)
    assert "0.74 of 40" in said


# Places -------------------------------------------------------------------------------------------

POINTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=14)


@settings(deadline=None)
@given(POINTS, st.lists(st.floats(1, 9), min_size=14, max_size=14), st.floats(1, 4))
def test_labels_cover_neither_each_other_nor_a_point(points: Any, widths: list[float], wider: float) -> None:
    """In the narrow room and in any wider one, no label lies on another, on a point or outside."""
    room, height, gap = (22.0, 13.0), 1.3, 0.55
    at = [(x * room[0], y * room[1]) for x, y in points]
    placed = scatter.label_places(
        at, [[width, 1.0] for width in widths[: len(at)]], room, height=height, gap=gap, front=len(at) // 3
    )
    boxes = [
        (x * room[0] * wider - gap, y - gap, x * room[0] * wider + gap, y + gap)
        for (x, _), (_, y) in zip(points, at, strict=True)
    ]
    for (x, _), (_, y), width, label in zip(points, at, widths, placed, strict=False):
        if label is None:
            continue
        long = (width, 1.0)[label.which]
        left = x * room[0] * wider + gap if label.is_right else x * room[0] * wider - gap - long
        box = (left, y + label.shift - height / 2, left + long, y + label.shift + height / 2)
        assert box[0] >= -1e-6
        assert box[2] <= room[0] * wider + 1e-6
        for other in boxes:
            across = min(box[2], other[2]) - max(box[0], other[0])
            down = min(box[3], other[3]) - max(box[1], other[1])
            assert min(across, down) < 1e-6
        boxes.append(box)


def test_a_lone_label_is_placed() -> None:
    """A point with room around it has its whole name."""
    assert scatter.label_places([(3.0, 6.0)], [[5.0, 1.0]], (22.0, 13.0), height=1.3, gap=0.5) == [
        scatter.Label(0, is_right=True, shift=0.0)
    ]


def test_a_name_stands_nearest_to_its_own_point() -> None:
    """Between two points above each other no name begins nearer to the other one, unless a line leads to it."""
    at, height, gap = [(3.0, 6.0), (3.0, 7.3)], 1.3, 0.5
    placed = scatter.label_places(at, [[5.0], [5.0]], (22.0, 13.0), height=height, gap=gap, front=1)
    for (x, y), (_, other), label in zip(at, reversed(at), placed, strict=True):
        assert x == 3.0
        assert label is not None
        assert abs(label.shift) > height or abs(label.shift) <= abs(y + label.shift - other)


def test_points_without_room_for_a_name_are_named_below() -> None:
    """In a crowd each pipeline has a label beside its point, its name or its number, or its name below the picture."""
    crowd = tuple(pipeline(f"name {at}", 0.5 + at / 1000, 0.01, 1.0) for at in range(20))
    page = bundle(board(pipelines=with_fronts(crowd), pairs=(), differences=()))["text/html"]
    below = re.findall(r"Without a name for want of room: (.*?)\.<", page)
    beside = len(re.findall(r"line-height:1\.3;white-space:nowrap[^>]*>", page))
    assert len(below) == 2
    assert beside + sum(len(re.split(r", | and ", names)) for names in below) == 40


@settings(deadline=None)
@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e6)), min_size=1, max_size=12))
def test_amounts_keep_their_order_on_the_scale(values: list[float]) -> None:
    """Every amount has a place between 0 and 1, in order, free ones apart; ticks stand on the scale, few and clear."""
    scale = scatter.from_zero(values, "free")
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    positive = [value for value in values if value > 0]
    assert scale.is_log == (bool(positive) and max(positive) > 10 * min(positive))
    if scale.is_log and 0.0 in values:
        assert scale.at(0.0) < scale.at(min(positive))
    ticks = [scale.at(tick) for tick, _ in scale.ticks]
    assert all(after - before >= 0.16 for before, after in itertools.pairwise(ticks))
    assert len(ticks) <= 7


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_qualities_stand_within_round_ends(values: list[float]) -> None:
    """The scale of quality holds every value, begins and ends at a tick, and goes nowhere beyond 0 and 1."""
    scale = scatter.within(values, (0.0, 1.0))
    assert -1e-9 <= scale.low <= min(values) + 1e-9
    assert max(values) - 1e-9 <= scale.high <= 1 + 1e-9
    assert scale.at(scale.ticks[0][0]) == pytest.approx(0, abs=1e-6)
    assert scale.at(scale.ticks[-1][0]) == pytest.approx(1, abs=1e-6)


def test_one_enormous_quality_has_a_scale_and_a_picture() -> None:
    """A metric may return anything finite: what is added for room is not lost in its last digits."""
    for value in (1e17, -1e300):
        scale = scatter.within([value, value], (0.0, 1.0))
        assert scale.low < scale.high
        assert all(len(said) < 30 for _, said in scale.ticks)
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    assert picture(pd.DataFrame({"quality": [1e300], "cost": [0.1]}, index=["a"])).axes[0].get_ylabel() == "quality"


# The picture --------------------------------------------------------------------------------------


def table_of(view: EvaluationView) -> pd.DataFrame:
    """Return the table that a picture is drawn from."""
    return pd.DataFrame(
        {
            "quality": [one.quality for one in view.pipelines],
            "low": [one.low for one in view.pipelines],
            "high": [one.high for one in view.pipelines],
            "cost": [one.cost_per_row for one in view.pipelines],
            "seconds": [one.seconds_per_row for one in view.pipelines],
        },
        index=[one.name for one in view.pipelines],
        dtype="Float64",
    )


def drawn(figure: Any) -> list[str]:
    """Return the names in a picture."""
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("against", ["cost", "seconds"])
def test_the_picture_has_every_point_and_the_front(against: Any) -> None:
    """Each pipeline stands at its figures under its name, and the steps go through those that nobody beats."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    table = table_of(board())
    figure: Any = picture(table, against=against, measure="points")
    [axes] = figure.axes
    at = {tuple(point) for dots in axes.collections for point in getattr(dots, "get_offsets", list)().tolist()}
    assert {*zip(table[against], table["quality"], strict=True)} <= at
    assert sorted(drawn(figure)) == sorted(table.index)
    [steps] = axes.lines
    on = table[front(table[against], table["quality"])].sort_values(against)
    assert list(steps.get_xdata()[:-1]) == on[against].to_list()
    assert list(steps.get_ydata()) == [*on["quality"], on["quality"].iloc[-1]]
    assert axes.get_ylabel() == "points"
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_picture_of_an_evaluation_is_against_what_was_asked_for() -> None:
    """Against seconds each pipeline stands at its seconds, by itself at its dollars, and the axis says so."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    found = compared()
    for figure, column, label in (
        (found.plot(), "cost", "dollars a row"),
        (found.plot(against="seconds"), "seconds", "seconds a row"),
    ):
        [axes] = figure.axes
        dots: Any = axes.collections
        at = {tuple(point) for one in dots for point in getattr(one, "get_offsets", list)().tolist()}
        assert {*zip(found.table[column], found.table["quality"], strict=True)} <= at
        assert (axes.get_xlabel(), axes.get_ylabel()) == (label, "points")


def test_free_pipelines_stand_apart_on_a_logarithmic_axis() -> None:
    """Where costs span decades the axis is logarithmic, and who costs nothing stands at its left end, called free."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    free = board(pipelines=(*board().pipelines, pipeline("local", 0.3, 0.0, 1.0), pipeline("dear", 0.7, 0.5, 1.0)))
    figure: Any = picture(table_of(free))
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xticklabels()[0].get_text() == "free"
    assert "local" in drawn(figure)
    assert axes.get_xlabel() == "dollars a row, logarithmic"


def test_a_picture_says_who_is_missing() -> None:
    """Unknown prices and missing qualities are left out by name; a table with nothing to draw says so."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    more = (pipeline("mystery", 0.5, None, 3.0), pipeline("broken", None, 0.1, 0.1))
    figure: Any = picture(table_of(board(pipelines=(*board().pipelines, *more))))
    assert "mystery" not in drawn(figure)
    assert figure.get_supxlabel() == (
        "Not in the picture: mystery, whose price is unknown; broken, of which nothing could be judged."
    )
    empty: Any = picture(table_of(board(pipelines=more)))
    assert drawn(empty) == ["nothing to draw: no pipeline has both"]
    assert empty._repr_png_().startswith(b"\x89PNG")


def test_a_picture_of_many_says_whose_name_has_no_room() -> None:
    """Of forty pipelines each is named beside its point or below the picture."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    figure: Any = picture(table_of(many(40, "a pipeline with a long name")))
    named = len(drawn(figure))
    assert named < 40
    assert "Without a name for want of room" in figure.get_supxlabel()


@pytest.mark.parametrize("said", ["$x^", "\\frac{", "a_b$c$", LONG, "<b>x</b>\n\x1b[31m", ""])
def test_a_picture_takes_names_as_names(said: str) -> None:
    """Signs of formulas in names are drawn as they are, and nothing is too long to be drawn."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    figure: Any = picture(table_of(full_of(said)), measure=said)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_picture_needs_its_columns() -> None:
    """A table without the column that is asked for says which one."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    with pytest.raises(SetupError, match="needs the column 'seconds'"):
        picture(table_of(board()).drop(columns="seconds"), against="seconds")


def test_without_matplotlib_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where matplotlib is not installed, the error names it and how to get it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SetupError, match=r'pip install "moa-nb\[evaluation\]"'):
        picture(table_of(board()))


def test_panels_load_no_plotting_library() -> None:
    """The panel's and the picture's modules leave matplotlib unloaded until a picture is drawn."""
    program = (
        "import sys, moa_nb.panels.evaluation, moa_nb.evaluation.picture\n"
        "assert not [name for name in sys.modules if name.startswith(('matplotlib', 'IPython'))]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
