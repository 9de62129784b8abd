"""The words for a comparison of pipelines, the same in every form of its panel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from moa_nb.panels import figures
from moa_nb.panels.evaluation.view import DifferenceView, EvaluationView, JudgeView, PairView, PipelineView
from moa_nb.panels.frame_report.words import bare, duration

__all__ = [
    "about",
    "amount",
    "cut",
    "difference_in_words",
    "differences_in_brief",
    "dollars",
    "interval",
    "judge_in_words",
    "judging_in_brief",
    "left_out",
    "listed",
    "measure",
    "named",
    "number",
    "pair_in_words",
    "remarks",
    "sections",
    "share_in_words",
    "times",
    "tokens",
]

_NAME, _SENTENCE = 60, 600

Against = Literal["cost", "time"]


def named(name: str) -> str:
    """Return a pipeline's or a model's name on one line, cut where it is long."""
    return bare(name, _NAME) or "(no name)"


def listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def number(value: float | None) -> str:
    """Return a quality, two places.

    >>> number(0.6249), number(None), number(-0.001)
    ('0.62', '–', '0.00')
    """
    return figures.UNKNOWN if value is None else f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def amount(difference: float) -> str:
    """Return how large a difference is, without its sign; one below a hundredth is not nothing.

    >>> amount(-0.24), amount(0.0042), amount(0.0001)
    ('0.24', '0.004', '<0.001')
    """
    size = abs(difference)
    return f"{size:.2f}" if size >= 0.0095 or not size else "<0.001" if size < 0.0005 else f"{size:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Return an interval; empty without one.

    >>> interval(-0.04, 0.129), interval(-0.0046, 0.018), interval(None, None)
    ('−0.04 to 0.13', '−0.005 to 0.018', '')
    """
    if low is None or high is None:
        return ""
    places = 3 if max(abs(low), abs(high)) < 0.095 else 2
    return " to ".join(
        f"{end:.{places}f}".replace(f"-{0:.{places}f}", f"{0:.{places}f}") for end in (low, high)
    ).replace("-", "−")


def share_in_words(test: DifferenceView) -> str:
    """Return the share of the points that the first wins against the second, with its interval.

    >>> share_in_words(DifferenceView("moa", "single", 0.7, 0.54, 0.84, 0.001, 37))
    '0.85 of the points (0.77 to 0.92)'
    """
    low, high = (None if end is None else (1 + end) / 2 for end in (test.low, test.high))
    ends = interval(low, high)
    return f"{number((1 + test.by) / 2)} of the points{f' ({ends})' if ends else ''}"


def measure(view: EvaluationView) -> str:
    """Return the word for quality at the head of a column."""
    return {"share": "points", "metric": bare(view.metric, 30) or "metric", "rating": "rating"}[view.measure]


def about(view: EvaluationView) -> str:
    """Return what was compared on what, and by whom it was judged."""
    said = [figures.count(len(view.pipelines), "pipeline"), figures.count(view.rows, "row")]
    if view.judges:
        said.append(f"judged by {listed([named(judge.model) for judge in view.judges])}")
    if view.reference:
        said.append(f"against the reference answers in {named(view.reference)}")
    return ", ".join(said)


def dollars(amount: float | None, *, at_least: bool = False, sign: str = "$", free: str = "free") -> str:
    """Return dollars, never a guess.

    >>> dollars(0.0021), dollars(0.0), dollars(None), dollars(0.0021, at_least=True, sign="")
    ('$0.0021', 'free', 'unknown', '≥0.0021')
    """
    if amount is None:
        return "unknown"
    if not amount:
        return f"≥{sign}0" if at_least else free
    return f"{'≥' if at_least else ''}{sign}{figures.dollars(amount)}"


def times(value: float | None, base: float | None) -> str:
    """Return a ratio for a narrow column; empty where there is none.

    >>> times(5.8, 1.0), times(0.4, 1.0), times(250.0, 1.0), times(1.0, 0.0)
    ('5.8×', '0.4×', '250×', '')
    """
    if not value or not base:
        return ""
    ratio = value / base
    return f"{ratio:,.0f}×" if ratio >= 9.95 else f"{ratio:.1f}×" if ratio >= 0.095 else "<0.1×"


def tokens(one: PipelineView) -> str:
    """Return the tokens of a row, in and out; estimated ones are marked.

    >>> tokens(PipelineView("moa", prompt_tokens_per_row=2140.4, estimated=True))
    '≈2,140 → –'
    """
    both = (one.prompt_tokens_per_row, one.completion_tokens_per_row)
    whole = (None if value is None else round(value) for value in both)
    return " → ".join(figures.tokens(value, estimated=one.estimated) for value in whole)


def remarks(one: PipelineView) -> list[tuple[str, str]]:
    """Return what is odd about a pipeline's rows, each with its kind: bad or odd."""
    said = [(f"{one.n_failed:,} failed", "bad")] if one.n_failed else []
    return [*said, *([(f"{one.n_degraded:,} degraded", "odd")] if one.n_degraded else [])]


def left_out(view: EvaluationView, against: Against) -> str:
    """Return which pipelines cannot stand in a picture and why; empty where all do."""
    what = "price" if against == "cost" else "time"
    missing = [
        named(one.name)
        for one in view.ranked
        if one.quality is not None and (one.cost_per_row if against == "cost" else one.seconds_per_row) is None
    ]
    unjudged = [named(one.name) for one in view.ranked if one.quality is None]
    said = [f"{listed(missing)}, whose {what} is unknown"] if missing else []
    said += [f"{listed(unjudged)}, of which nothing could be judged"] if unjudged else []
    return f"Not in the picture: {'; '.join(said)}." if said else ""


def pair_in_words(pair: PairView | None) -> str:
    """Return how a pair came out.

    >>> pair_in_words(PairView("moa", "single", 0.75, 40, 1)), pair_in_words(None)
    ('0.75 of 40, 1 tie', '–')
    """
    if pair is None or pair.share is None:
        return figures.UNKNOWN
    ties = f", {figures.count(pair.ties, 'tie')}" if pair.ties else ""
    return f"{number(pair.share)} of {pair.n:,}{ties}"


def difference_in_words(view: EvaluationView, test: DifferenceView) -> str:
    """Return what a paired test found, the better one named first."""
    if test.by < 0:
        test = view.difference(test.other, test.one) or test
    one, other, ends = named(test.one), named(test.other), interval(test.low, test.high)
    by = f"{amount(test.by)}{f' ({ends})' if ends else ''}"
    chance = "too few rows for a test" if test.p is None else _chance(test, len(view.differences))
    rows = figures.count(test.n, "row")
    if view.measure == "share" and test.by:
        open_or_not = "" if view.is_settled(test) else ", which is not settled"
        return f"{one} wins {share_in_words(test)} against {other}{open_or_not}; {chance}; {rows}."
    if view.is_settled(test):
        return f"{one} is better than {other} by {by}; {chance}; {rows}."
    if not test.by:
        return f"{one} and {other} are level{f' ({ends})' if ends else ''}; {chance}; {rows}."
    return f"{one} is ahead of {other} by {by}, which is not settled; {chance}; {rows}."


def _chance(test: DifferenceView, n_tests: int) -> str:
    corrected = f", {_p(test.p_holm)} corrected for {n_tests} tests" if test.p_holm is not None else ""
    return f"p {_p(test.p)}{corrected}"


def _p(p: float | None) -> str:
    if p is None:
        return figures.UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def differences_in_brief(view: EvaluationView) -> str:
    """Return how many tests settled something."""
    settled = sum(view.is_settled(test) for test in view.differences)
    return f"{settled:,} of {len(view.differences):,} settled at {100 * view.confidence:g} %"


def judge_in_words(judge: JudgeView, what: str = "verdict") -> list[str]:
    """Return what is known of a judge's reliability, a sentence each, the judge first; ``what`` it gives."""
    unread = f", {judge.n_unreadable:,} of them unreadable" if judge.n_unreadable else ", all of them readable"
    said = [f"{named(judge.model)}: {figures.count(judge.n_verdicts, what)}{unread if judge.n_verdicts else ''}."]
    if judge.flip_rate is not None:
        pairs = f"{figures.count(judge.n_swapped, 'pair')} shown in both orders"
        said.append(f"{_percent(judge.flip_rate)} of {pairs} flipped when the answers changed places.")
    if judge.first_wins is not None:
        said.append(f"The answer shown first won {_percent(judge.first_wins)} of the verdicts with a winner.")
    if judge.longer_wins is not None:
        pairs = f"{figures.count(judge.n_unequal, 'pair')} of unequal length"
        said.append(f"The longer answer won {_percent(judge.longer_wins)} of {pairs}.")
    if judge.own_wins is not None:
        pairs = f"{figures.count(judge.n_own, 'pair')} with an answer by the judge's own model"
        said.append(f"Its own answer won {_percent(judge.own_wins)} of {pairs}.")
    if judge.kappa is not None:
        labels = f"{judge.n_labelled:,} of their {'label' if judge.n_labelled == 1 else 'labels'}"
        said.append(f"Agreement with people, Cohen's kappa on {labels}: {number(judge.kappa)}.")
    return said


def judging_in_brief(view: EvaluationView) -> str:
    """Return the one thing to know of the judges before looking further; empty where nothing is known."""
    said = []
    flipped = sum(judge.flip_rate * judge.n_swapped for judge in view.judges if judge.flip_rate is not None)
    swapped = sum(judge.n_swapped for judge in view.judges if judge.flip_rate is not None)
    if swapped:
        said.append(f"{_percent(flipped / swapped)} of pairs flipped")
    longer = sum(judge.longer_wins * judge.n_unequal for judge in view.judges if judge.longer_wins is not None)
    unequal = sum(judge.n_unequal for judge in view.judges if judge.longer_wins is not None)
    if unequal:
        said.append(f"the longer answer won {_percent(longer / unequal)} of {unequal:,}")
    unread = sum(judge.n_unreadable for judge in view.judges)
    what = "rating" if view.measure == "rating" else "verdict"
    return ", ".join([*said, *([f"{figures.count(unread, what)} unreadable"] if unread else [])])


def sections(view: EvaluationView, *, sign: str = "$") -> Iterator[tuple[str, str, list[str]]]:
    """Yield what stands below the figures: a title, the one thing to know of it, and its sentences."""
    if view.differences:
        tests = [difference_in_words(view, one) for one in view.differences]
        yield "Paired tests", differences_in_brief(view), tests
    if view.judges:
        judges = [
            sentence
            for judge in view.judges
            for sentence in judge_in_words(judge, "rating" if view.measure == "rating" else "verdict")
        ]
        yield "The judge" if len(view.judges) == 1 else "The judges", judging_in_brief(view), judges
    if view.unsaid:
        yield "What cannot be said", "of these rows", [*view.unsaid]
    paid = dollars(view.cost, at_least=view.cost_is_at_least, sign=sign, free=f"{sign}0")
    yield "What this comparison cost", f"{paid} paid now", _costs(view, sign)


def cut(sentences: Sequence[str], most: int = 40) -> list[str]:
    """Return sentences, each on one line of bearable length; of too many the rest is counted."""
    said = [bare(one, _SENTENCE) for one in sentences[:most]]
    more = len(sentences) - most
    return [*said, *([f"… {figures.count(more, 'more sentence')}"] if more > 0 else [])]


def _costs(view: EvaluationView, sign: str) -> list[str]:
    hedge = view.cost_is_at_least
    saved = f"; cached ones once took {sign}{figures.dollars(view.answers_saved)}" if view.answers_saved else ""
    paid = dollars(view.answers_cost, at_least=hedge, sign=sign, free=f"{sign}0")
    said = [f"Answers: {paid} paid now{saved}."]
    if view.judging_calls:
        cached = f", {view.judging_cached:,} cached" if view.judging_cached else ""
        saved = f"; cached ones once took {sign}{figures.dollars(view.judging_saved)}" if view.judging_saved else ""
        paid = dollars(view.judging_cost, at_least=hedge, sign=sign, free=f"{sign}0")
        said.append(f"Judging: {paid} paid now for {figures.count(view.judging_calls, 'call')}{cached}{saved}.")
    if view.seconds is not None:
        said.append(f"From beginning to end: {duration(view.seconds)}.")
    return said


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
