"""Calibration: a replay is what the strategy itself would have done, thresholds serve their wish, and the rest is held out."""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.chat import Completion, Request
from moa_nb.errors import SetupError
from moa_nb.evaluation.calibration.calibration import Calibration, calibrate
from moa_nb.evaluation.calibration.curves import apgr, apgr_interval, chance, cpt, curve, optimal
from moa_nb.evaluation.calibration.replay import Replay
from moa_nb.pipeline.routing import Nearest, past
from moa_nb.testing import ChatServer, Reply

TIERS = ("small", "middle", "large")
PRICES = {"small": 0.001, "middle": 0.01, "large": 0.1}

shares = st.floats(0, 1)
scores = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), shares)
rights = st.integers(0, 1)
unhurried = settings(deadline=None)
logs = st.lists(st.tuples(scores, rights, rights), min_size=1, max_size=30)


def columns(log: list[tuple[Any, ...]]) -> list[list[Any]]:
    """The columns of rows."""
    return [list(column) for column in zip(*log, strict=True)]


# Thresholds from scores alone ---------------------------------------------------------------------


def test_thirty_of_a_hundred_known_scores_are_strong() -> None:
    """Exactly 30 with 0.3, and the ties of the thirtieth more."""
    known = [place / 100 for place in range(100)]
    threshold = calibrate(known, 0.3)
    assert sum(score >= threshold for score in known) == 30
    tied = [min(score, 0.75) for score in known]
    assert sum(score >= calibrate(tied, 0.1) for score in tied) == 25


@unhurried
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), shares)
def test_so_many_are_strong_as_was_asked_and_the_ties(known: list[float], fraction: float) -> None:
    """As many as the rounded part of the sample, and only equal scores beyond it."""
    threshold = calibrate(known, fraction)
    wanted = round(fraction * len(known))
    assert sum(score > threshold for score in known) <= wanted <= sum(score >= threshold for score in known)
    if wanted == 0:
        assert not any(score >= threshold for score in known)


def test_missing_scores_are_left_out_and_nonsense_is_refused() -> None:
    """A Series with gaps is taken as it is."""
    assert calibrate(pd.Series([0.1, None, 0.9]), 0.5) == 0.9
    assert calibrate(pd.Series([0.1, pd.NA, 0.9], dtype="Float64"), 1) == 0.1
    for known, fraction in (([], 0.5), ([0.1], 1.5), ([None], 0.5)):
        with pytest.raises(SetupError, match="at least one score and a fraction"):
            calibrate(known, fraction)  # type: ignore[arg-type]  # that is the point
    for nonsense in (["a"], [math.inf, 1.0]):
        with pytest.raises(SetupError, match="scores have to be"):
            calibrate(nonsense, 0.5)  # type: ignore[arg-type]  # as above
    with pytest.raises(SetupError, match="a fraction in"):
        calibrate([0.1], "half")  # type: ignore[arg-type]  # as above


# The gap recovered --------------------------------------------------------------------------------


def test_the_gap_that_a_router_recovers() -> None:
    """Always the weak quality is 0, a straight line between the two is a half, always the strong quality is 1."""
    weak, strong = 0.5, 0.75
    assert apgr([(0, weak), (1, weak)], weak, strong) == 0
    assert apgr([(share / 8, weak + share / 8 * (strong - weak)) for share in range(9)], weak, strong) == 0.5
    assert apgr([(0, strong), (1, strong)], weak, strong) == 1
    assert apgr([(0.5, strong)], weak, strong) == 1
    assert apgr([(0, weak), (1, strong)]) == 0.5


@unhurried
@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=20), st.randoms())
def test_the_order_of_a_curve_does_not_matter(points: list[tuple[float, float]], lot: random.Random) -> None:
    """And between the two qualities it stays in [0, 1]."""
    shuffled = points.copy()
    lot.shuffle(shuffled)
    assert apgr(shuffled, 0, 1) == apgr(points, 0, 1)
    assert -1e-9 <= apgr(points, 0, 1) <= 1 + 1e-9


def test_no_gap_cannot_be_recovered() -> None:
    """Nor can an empty curve, or one that does not say how good the models are."""
    with pytest.raises(SetupError, match="two models of different quality"):
        apgr([(0.0, 0.5)], 0.5, 0.5)
    with pytest.raises(SetupError, match="there are no points"):
        apgr([], 0.5, 0.7)
    with pytest.raises(SetupError, match="no point at share 1: say strong="):
        cpt([(0, 0.5), (0.5, 0.9)], 0.5)
    with pytest.raises(SetupError, match=r"0\.4 is not above 0\.5"):
        cpt([(0, 0.5), (1, 0.4)], 0.5)


def test_the_first_crossing_counts_where_quality_falls_again() -> None:
    """Looking shares up by quality would sort a rise behind a fall; here the curve is followed from share 0."""
    points = [(0.0, 0.0), (0.2, 0.6), (0.4, 0.3), (1.0, 1.0)]
    assert cpt(points, 0.5) == pytest.approx(0.2 * 0.5 / 0.6)
    assert cpt(points, 0.6) == 0.2
    assert cpt(points, 0.65) == pytest.approx(0.4 + 0.6 * 0.35 / 0.7)
    assert cpt(points, 0) == 0
    assert cpt([(0, 0.2), (1, 0.3)], 0.5, weak=0, strong=1) is None
    assert cpt([(0.3, 0.9), (1, 1.0)], 0.5, weak=0.1) == 0.3


@unhurried
@given(logs, st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_what_cpt_says_reaches_the_part_of_the_gap(log: list[tuple[Any, ...]], x: float) -> None:
    """At that share a coin between its neighbours reaches the quality, and no threshold with a smaller share does."""
    said, weak, strong = columns(log)
    assume(sum(weak) < sum(strong))
    points = curve(said, weak, strong)
    low, high = np.mean(weak), np.mean(strong)
    share = cpt(points, x, low, high)
    assert share is not None
    wanted = low + x * (high - low)
    assert np.interp(share, points["strong_share"], points["quality"]) >= wanted - 1e-9 or share == pytest.approx(
        points["strong_share"].min()
    )
    assert (points.loc[points["strong_share"] < share - 1e-9, "quality"] < wanted + 1e-9).all()


# Curves -------------------------------------------------------------------------------------------


@unhurried
@given(logs)
def test_a_curve_is_what_each_threshold_does(log: list[tuple[Any, ...]]) -> None:
    """Line by line as the strategy's own rule: strong if score >= threshold, missing ones always."""
    said, weak, strong = columns(log)
    points = curve(said, weak, strong, weak_cost=1, strong_cost=[5.0] * len(log))
    distinct = {score for score in said if score is not None}
    assert len(points) == len(distinct) + 1
    assert points["strong_share"].is_monotonic_increasing
    assert points["threshold"].is_monotonic_decreasing
    for line in points.itertuples():
        is_strong = [score is None or past(score, [float(str(line.threshold))]) == 1 for score in said]
        answers = [b if one else a for one, a, b in zip(is_strong, weak, strong, strict=True)]
        assert line.strong_share == pytest.approx(np.mean(is_strong))
        assert line.quality == pytest.approx(np.mean(answers))
        assert line.cost == pytest.approx(1 + 4 * np.mean(is_strong))
    assert points["strong_share"].iloc[-1] == pytest.approx(1)


@unhurried
@given(logs)
def test_no_router_is_above_the_optimal_curve(log: list[tuple[Any, ...]]) -> None:
    """And the optimal one is concave, from the weak model to the strong one, as chance is."""
    said, weak, strong = columns(log)
    points, best, coin = curve(said, weak, strong), optimal(weak, strong), chance(weak, strong)
    reached = np.interp(points["strong_share"], best["strong_share"], best["quality"])
    assert (points["quality"] <= reached + 1e-9).all()
    assert coin["quality"].tolist() == pytest.approx([best["quality"].iloc[0], best["quality"].iloc[-1]])
    slopes = np.diff(best["quality"]) / np.diff(best["strong_share"])
    assert (np.diff(slopes) <= 1e-9).all()
    if sum(weak) != sum(strong):
        assert apgr(coin) == pytest.approx(0.5)


def test_equal_scores_go_together() -> None:
    """Constant scores are a curve of two points, which is chance; ten bins of them are no error."""
    points = curve([0.5] * 4, [0, 1, 0, 0], [1, 1, 1, 0])
    assert points["strong_share"].tolist() == [0, 1]
    assert apgr(points) == 0.5
    assert curve([0.5] * 4, [0, 1, 0, 0], [1, 1, 1, 0], bins=10).equals(points)


def test_ten_bins_are_eleven_thresholds() -> None:
    """Those of RouteLLM's evaluation: from everybody to nobody, in tenths."""
    said = [place / 100 for place in range(100)]
    points = curve(said, [0] * 100, [1] * 100, bins=10)
    assert len(points) == 12
    assert points["strong_share"].tolist()[0] == 0
    steps = points["strong_share"].tolist()[1:]
    assert [round(share, 1) for share in steps] == [0.0, *(tenth / 10 for tenth in range(1, 11))]
    assert {*points["threshold"]} <= {*curve(said, [0] * 100, [1] * 100)["threshold"]}


def test_without_any_score_everybody_goes_to_the_fallback() -> None:
    """All missing is one point; rows without a quality are left out, and none at all is refused."""
    points = curve([None, None], [0, 0], [1, 0])
    assert points[["strong_share", "quality"]].to_numpy().tolist() == [[1.0, 0.5]]
    assert len(curve([0.1, 0.2], [0, None], [1, 1])) == 2
    with pytest.raises(SetupError, match="none of 2 rows has the quality of both models"):
        curve([0.1, 0.2], [0, None], [None, 1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([0.1], [1, 0], [1, 1]), "of the same rows"),
        ((["high"], [1], [1]), "have to be numbers"),
        (([math.inf], [1], [1]), "have to be finite"),
        ((pd.Series([0.1], index=[5]), pd.Series([1]), pd.Series([1])), "labels differ"),
    ],
)
def test_rows_that_do_not_fit_are_refused(arguments: tuple[Any, ...], said: str) -> None:
    """In one line."""
    with pytest.raises(SetupError, match=said):
        curve(*arguments)
    for bins in (0, 2.5):
        with pytest.raises(SetupError, match="bins is at least 1"):
            curve([0.1], [1], [1], bins=bins)


@pytest.mark.parametrize(
    "points",
    [
        [(0, 0.5), (math.nan, 0.5), (1, 0.9)],
        [(0, 0.5), (0.5, math.nan), (1, 0.9)],
        [(0, 50), (100, 90)],
        pd.DataFrame({"share": [0, 1]}),
        "abc",
        None,
    ],
)
def test_what_is_no_curve_is_refused(points: Any) -> None:
    """Shares beyond [0, 1] and missing points give no figure; nor does what has no points."""
    for measure in (lambda one: apgr(one, 0.1, 0.9), lambda one: cpt(one, 0.5, 0.1, 0.9)):
        with pytest.raises(SetupError, match="a curve"):
            measure(points)


def test_the_interval_is_over_resampled_curves() -> None:
    """What the sweep of the weighted rows gives is apgr of the curve; rows without a score go first; one row has none."""
    lot = np.random.default_rng(5)
    for n in (3, 20, 60):
        scores = np.where(lot.random(n) < 0.2, np.nan, lot.integers(0, 5, n) / 4)
        weak, strong = lot.random(n), lot.random(n)
        assert apgr_interval(scores, weak, strong).mean == pytest.approx(
            apgr(curve(scores, weak, strong), weak.mean(), strong.mean())
        )
    alone = apgr_interval([0.3], [0], [1])
    assert (alone.mean, alone.low, alone.high) == (0.5, None, None)


def test_the_interval_of_a_coin_holds_a_half() -> None:
    """A router that knows nothing has 0.5 in its interval, one that knows all is above it; it is the same each time."""
    lot = np.random.default_rng(7)
    weak, strong = lot.integers(0, 2, 400), np.ones(400)
    blind = apgr_interval(lot.random(400), weak, strong)
    seer = apgr_interval(1 - weak, weak, strong)
    assert blind.low is not None
    assert blind.high is not None
    assert seer.low is not None
    assert blind.low < 0.5 < blind.high < seer.low
    assert seer == apgr_interval(1 - weak, weak, strong)
    assert seer.mean == pytest.approx(apgr(curve(1 - weak, weak, strong)))
    with pytest.raises(SetupError, match="different quality"):
        apgr_interval([0.1, 0.2], [1, 0], [0, 1])
    with pytest.raises(SetupError, match="confidence"):
        apgr_interval([0.1, 0.2], [1, 0], [1, 1], confidence=95)


# A replay is the strategy -------------------------------------------------------------------------


def tier(name: str) -> Callable[[str], Completion]:
    """A recorded agent: ``NAME QUESTION`` at its price, which grows with the question."""

    def agent(prompt: str) -> Completion:
        return Completion(f"{name} {prompt}", name, "stop", cost=PRICES[name] * (1 + len(prompt)))

    agent.__name__ = name
    return agent


def ran(pipeline: moa.Pipeline, questions: list[str], **columns: Any) -> tuple[list[str], list[float]]:
    """What the strategy itself answers, and what that takes."""
    run = pd.DataFrame({"q": questions, **columns}).moa.start.synthesize("q", pipeline=pipeline, cache="off").wait()
    return list(run.values), run.costs.tolist()


def replayed(replay: Replay, thresholds: Any, questions: list[str]) -> tuple[list[str], list[float]]:
    """What the replay says that it answers, and takes."""
    ends = replay.ends(thresholds)
    names = list(replay.quality.columns)
    costs = replay.costs.to_numpy() if replay.costs is not None else np.zeros((len(ends), len(names)))
    taken = [costs[row, end] if replay.gates.is_route else costs[row, : end + 1].sum() for row, end in enumerate(ends)]
    return [f"{names[end]} {question}" for end, question in zip(ends, questions, strict=True)], taken


few = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def _nothing_is_stored() -> None:
    moa.configure(store="none")


@few
@given(st.lists(scores, min_size=1, max_size=6), st.lists(shares, min_size=1, max_size=2), st.booleans())
def test_a_replayed_route_goes_where_the_route_goes(said: list[Any], limits: list[float], falls_back: bool) -> None:
    """Two ways and three, with and without a word of the router: the same rows, answers and dollars."""
    names = TIERS[: len(limits) + 1]
    fallback = f"function:{names[0]}" if falls_back else None
    recipe = moa.Pipeline(
        strategy="route", ways=[tier(name) for name in names], router={"column": "s"}, fallback=fallback
    )
    questions = [f"question {at}" + "!" * at for at in range(len(said))]
    costs = {name: [PRICES[name] * (1 + len(question)) for question in questions] for name in names}
    replay = Replay(said, {name: [0] * len(said) for name in names}, costs, pipeline=recipe)
    thresholds = sorted(limits)
    answers, taken = ran(replay.filled(thresholds), questions, s=pd.array(said, dtype="Float64"))
    expected, dollars = replayed(replay, thresholds, questions)
    assert answers == expected
    assert taken == pytest.approx(dollars)


@few
@given(
    st.lists(st.tuples(scores, scores), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([0.25, 0.5, 0.75]),
)
def test_a_replayed_cascade_stops_where_the_cascade_stops(
    said: list[tuple[Any, Any]], first: float, second: float
) -> None:
    """Three tiers with a threshold each, ties and scorers that fail: the same rows, answers and dollars."""
    questions = [f"question {at}" + "!" * at for at in range(len(said))]
    known = {
        f"{TIERS[at]} {question}": pair[at] for question, pair in zip(questions, said, strict=True) for at in (0, 1)
    }
    recipe = moa.Pipeline(
        strategy="cascade",
        tiers=[tier(name) for name in TIERS],
        scorer=lambda _, answer: known[answer],  # ``None`` fails, which rejects
        accept_above=math.inf,
    )
    frame = pd.DataFrame({"q": questions})
    run = frame.moa.start.synthesize("q", pipeline=recipe, cache="off").wait()
    logged = Replay.of(run, recipe, metric=len)
    runs = {
        name: frame.moa.start.synthesize("q", pipeline=moa.Pipeline(layers=[[tier(name)]]), cache="off")
        for name in TIERS
    }
    apart = Replay.of(runs, recipe, metric=len)
    for one, other in ((logged.scores, apart.scores), (logged.quality, apart.quality), (logged.costs, apart.costs)):
        assert one is not None
        assert other is not None
        assert np.allclose(one.to_numpy("float64"), other.to_numpy("float64"), equal_nan=True)
    answers, taken = ran(logged.filled((first, second)), questions)
    expected, dollars = replayed(logged, (first, second), questions)
    assert answers == expected
    assert taken == pytest.approx(dollars)


def test_what_the_store_has_is_replayed(server: ChatServer, lab: Callable[..., None]) -> None:
    """A model scores, over HTTP: its scores and dollars are read from the store, cached ones as if they were paid."""
    lab(small="lab:a", strong="lab:z", judge="lab:c", store="disk")
    said = {"one": 0.9, "two": 0.4, "three": 0.65, "four": 0.2}

    def judge(body: dict[str, Any]) -> str:
        return f"[[{next(score for word, score in said.items() if f'question {word}' in body['messages'][-1]['content']):.2f}]]"

    server.on("c", lambda body: Reply(judge(body)))
    frame = pd.DataFrame({"q": [f"question {word}" for word in said]}, index=[7, 7, 3, 1])
    closed = moa.Pipeline(strategy="cascade", accept_above=math.inf)
    frame.moa.synthesize("q", pipeline=closed)
    run = frame.moa.start.synthesize("q", pipeline=closed).wait()
    assert run.costs.sum() == 0
    n_asked = server.count()
    replay = Replay.of(run, closed, quality=pd.DataFrame({"a": [1, 0, 1, 0], "z": [1, 1, 1, 1]}, index=frame.index))
    assert replay.scores.iloc[:, 0].tolist() == [*said.values()]
    assert server.count() == n_asked
    found = frame.moa.start.synthesize("q", pipeline=replay.filled(0.6), cache="off").wait()
    assert replay.ends(0.6).tolist() == [0, 1, 0, 1]
    assert list(found.values) == [("answer of a", "answer of z")[end] for end in replay.ends(0.6)]
    cost = replay.at(0.6).cost
    assert cost is not None
    assert cost.mean == pytest.approx(found.costs.mean())


VERDICTS = [["correct"] * at + ["incorrect"] * (3 - at) for at in range(4)] + [["?"] * 3, ["correct", "?", "?"]]


@few
@given(st.lists(st.sampled_from(range(len(VERDICTS))), min_size=1, max_size=5), st.sampled_from([0.0, 0.4, 0.75]))
def test_a_replayed_automix_hands_over_what_automix_does(kinds: list[int], accept_above: float) -> None:
    """Shares of "correct", unreadable verdicts, and hopeless ones that stay where they are."""
    questions = [f"question {at} of kind {kind}" for at, kind in enumerate(kinds)]

    def small(prompt: str, request: Request) -> Completion:
        if "erdict" not in prompt:
            return Completion(f"small {prompt}", "small", "stop", cost=0.001)
        kind = next(kind for question, kind in zip(questions, kinds, strict=True) if question in prompt)
        verdict = VERDICTS[kind][request.sample % 3]  # its threads may come in any order
        return Completion(f"Verdict: {verdict}", "small", "stop", cost=0.01)

    def recipe(**params: Any) -> moa.Pipeline:
        return moa.Pipeline(strategy="automix", tiers=[small, tier("large")], draws=3, **params)

    def went(pipeline: moa.Pipeline) -> moa.FrameRun:
        run: moa.FrameRun = pd.DataFrame({"q": questions}).moa.start.synthesize("q", pipeline=pipeline, cache="off")
        return run.wait()

    closed = recipe(accept_above=1)
    logged = Replay.of(went(closed), closed, metric=len)
    for hopeless in (0.0, 0.35):
        if hopeless > accept_above:
            continue
        open_ = recipe(accept_above=accept_above, hopeless_below=hopeless)
        replay = Replay(logged.scores, logged.quality, logged.costs, pipeline=open_)
        run = went(open_)
        ends = replay.ends()
        assert [text.split()[0] for text in list(run.values)] == [("small", "large")[end] for end in ends]
        costs = replay.costs
        assert costs is not None
        assert run.costs.tolist() == pytest.approx([costs.iloc[row, : end + 1].sum() for row, end in enumerate(ends)])


@few
@given(
    st.lists(st.lists(st.sampled_from(["1", "2", "none"]), min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.34, 0.5, 0.67, 1.0]),
    st.sampled_from(["pyramid", "consistency-cascade"]),
)
def test_a_replayed_vote_asks_the_strong_model_where_the_vote_does(
    ballots: list[list[str]], agree: float, strategy: str
) -> None:
    """Full agreement stops at every threshold, so such rows need no answer of the strong model to be replayed."""
    questions = [f"question {chr(97 + at)}" for at in range(len(ballots))]
    said = dict(zip(questions, ballots, strict=True))

    def voter(at: int) -> Callable[[str, Request], Completion]:
        def vote(prompt: str, request: Request) -> Completion:
            question = next(question for question in questions if question in prompt)
            mine = said[question][at if at >= 0 else request.sample % 3]  # its threads may come in any order
            return Completion(f"it is {mine}", "voter", "stop", cost=0.01)

        vote.__name__ = f"voter{at}"
        return vote

    def large(prompt: str) -> Completion:
        return Completion("it is 7", "large", "stop", cost=0.5)

    def recipe(agree: float) -> moa.Pipeline:
        if strategy == "pyramid":
            return moa.Pipeline(strategy=strategy, base=[voter(at) for at in range(3)], oracle=large, agree=agree)
        return moa.Pipeline(
            strategy=strategy, tiers=[voter(-1), large], samples=3, ways=[None], agree=agree, answer="number"
        )

    def went(pipeline: moa.Pipeline) -> moa.FrameRun:
        run: moa.FrameRun = pd.DataFrame({"q": questions}).moa.start.synthesize("q", pipeline=pipeline, cache="off")
        return run.wait()

    closed = recipe(1.0)
    replay = Replay.of(went(closed), closed, reference=["1"] * len(ballots), metric="numeric")
    assert replay.n_left_out == 0
    run = went(replay.filled(agree))
    ends = replay.ends(agree)
    assert [text == "it is 7" for text in list(run.values)] == [end == 1 for end in ends]
    right = [float(text == "it is 1") for text in list(run.values)]
    assert replay.at(agree).quality.mean == pytest.approx(np.mean(right))
    cost = replay.at(agree).cost
    assert cost is not None
    assert cost.mean == pytest.approx(run.costs.mean())


# Choosing -----------------------------------------------------------------------------------------


def sample(n: int, seed: int = 0, n_tiers: int = 2) -> Replay:
    """Rows whose scores say something about the small tiers' answers."""
    lot = np.random.default_rng(seed)
    difficulty = lot.random(n)
    quality = {name: (lot.random(n) > difficulty * (1 - at / n_tiers)).astype(float) for at, name in enumerate(TIERS)}
    quality = dict(list(quality.items())[:n_tiers])
    said = np.clip(1 - difficulty[:, None] + lot.normal(0, 0.2, (n, n_tiers - 1)), 0, 1)
    costs = {name: PRICES[name] * (1 + lot.random(n)) for name in quality}
    recipe = moa.Pipeline(strategy="cascade", tiers=[f"lab:{name}" for name in quality], scorer="lab:judge")
    return Replay(said, quality, costs, pipeline=recipe)


@pytest.mark.parametrize("n_tiers", [2, 3])
@pytest.mark.parametrize("wish", [{"max_cost": 0.006}, {"max_strong_share": 0.3}, {"min_quality": 0.6}])
def test_no_other_thresholds_serve_the_wish_better(n_tiers: int, wish: dict[str, float]) -> None:
    """Of all there are, on the rows they were chosen on; on the others nothing was chosen."""
    replay = sample(80, n_tiers=n_tiers)
    found = replay.calibrate(**wish, seed=3)
    places = np.flatnonzero(found.parts == "fit")
    fit = replay.take(places)
    tried = fit.curve()
    assert found.fit.quality.mean is not None
    assert found.fit.cost is not None
    assert found.fit.cost.mean is not None
    served = tried
    if "min_quality" in wish:
        served = tried[tried["quality"] >= wish["min_quality"]]
        assert found.fit.quality.mean >= wish["min_quality"]
        assert found.fit.cost.mean == pytest.approx(served["cost"].min())
    else:
        name = next(iter(wish)).removeprefix("max_")
        served = tried[tried[name] <= wish[f"max_{name}"]]
        assert found.fit.quality.mean == pytest.approx(served["quality"].max())
        assert (found.fit.cost.mean if name == "cost" else found.fit.strong_share) <= next(iter(wish.values()))
    places = np.flatnonzero(found.parts == "held out")
    assert found.held_out == replay.take(places).at(found.thresholds)
    assert replay.costs is not None
    for name, alone in found.alone.iterrows():
        assert alone["quality"] == pytest.approx(replay.quality[name].iloc[places].mean())
        assert alone["cost"] == pytest.approx(replay.costs[name].iloc[places].mean())
    assert found.pipeline.params.accept_above == found.thresholds  # type: ignore[attr-defined]  # a cascade's


@given(st.integers(20, 200), st.floats(0.05, 0.95), st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_no_row_is_in_both_parts(n: int, hold_out: float, seed: int) -> None:
    """Each is in one, the parts are as large as was said, and the same seed parts alike."""
    assume(min(round(n * hold_out), n - round(n * hold_out)) >= 10)
    replay = Replay(np.linspace(0, 1, n), {"small": np.zeros(n), "large": np.ones(n)})
    found = replay.calibrate(max_strong_share=0.5, hold_out=hold_out, seed=seed)
    assert found.fit.n + found.held_out.n == n == found.parts.notna().sum()
    assert found.held_out.n == round(n * hold_out) == (found.parts == "held out").sum()
    assert found.parts.equals(replay.calibrate(max_strong_share=0.5, hold_out=hold_out, seed=seed).parts)


def test_more_money_is_never_less_quality() -> None:
    """On the rows that it was chosen on, quality rises with what may be spent; cost rises with the quality wished."""
    replay = sample(120)
    qualities = [replay.calibrate(max_cost=dollars / 1000).fit.quality.mean for dollars in range(3, 160, 10)]
    assert qualities == sorted(qualities, key=lambda quality: quality or 0)
    costs = [replay.calibrate(min_quality=quality / 100).fit.cost for quality in range(50, 70, 4)]
    means = [cost.mean for cost in costs if cost is not None]
    assert means == sorted(means, key=lambda cost: cost or 0)


def test_many_combinations_are_a_grid_of_quantiles() -> None:
    """Three tiers with hundreds of scores are too many to try all: the result says so, and is exact on the grid."""
    replay = sample(600, n_tiers=3)
    found = replay.calibrate(max_cost=0.02)
    assert "a grid of up to 100 quantiles" in found.searched
    assert len(replay.candidates()[0]) <= 10_000
    assert {*found.thresholds} <= {-math.inf, *replay.scores.to_numpy().ravel()}
    few = Replay(replay.scores.round(1), replay.quality, replay.costs, pipeline=replay.pipeline)
    assert few.calibrate(max_cost=0.02).searched == "all 144 combinations of thresholds"


def test_a_route_of_three_ways_has_rising_thresholds() -> None:
    """All pairs are tried; one router's score says the way."""
    lot = np.random.default_rng(1)
    hard = lot.random(60)
    quality = {name: (hard < (at + 1) / 3).astype(float) for at, name in enumerate(TIERS)}
    costs = {name: np.full(60, PRICES[name]) for name in TIERS}
    recipe = moa.Pipeline(strategy="route", ways=[f"lab:{name}" for name in TIERS], router={"column": "hard"})
    replay = Replay(hard, quality, costs, pipeline=recipe)
    found = replay.calibrate(min_quality=1)
    assert found.fit.quality.mean == 1
    first, second = found.thresholds
    assert 0.2 < first < 0.45 < second < 0.75
    assert found.pipeline.params.thresholds == (first, second)  # type: ignore[attr-defined]  # a route's
    assert tomllib.loads(found.to_toml())["thresholds"] == [first, second]


def test_an_infeasible_wish_says_what_is_feasible() -> None:
    """In one line, with figures."""
    replay = sample(60)
    with pytest.raises(SetupError, match=r"no thresholds reach quality 0\.999: the best is quality 0\.\d\d, \$0\.\d+"):
        replay.calibrate(min_quality=0.999)
    with pytest.raises(SetupError, match=r"no thresholds keep \$0\.0005 a row: the least is quality 0\.\d\d, \$0\.\d+"):
        replay.calibrate(max_cost=0.0005)
    with pytest.raises(SetupError, match=r"all wishes at once; within one of them: quality 0\.\d\d"):
        replay.calibrate(min_quality=0.6, max_cost=0.002)
    with pytest.raises(SetupError, match="say what you wish"):
        replay.calibrate()
    with pytest.raises(SetupError, match="nobody knows what these tiers cost"):
        Replay(replay.scores, replay.quality, pipeline=replay.pipeline).calibrate(max_cost=1)
    with pytest.raises(SetupError, match="each part needs 10"):
        sample(15).calibrate(max_cost=1)
    with pytest.raises(SetupError, match="hold_out is a part"):
        replay.calibrate(max_cost=1, hold_out=1)


def test_constant_and_missing_scores_can_be_calibrated() -> None:
    """All or nothing is all that there is to choose; without any score everybody goes on."""
    n = 40
    quality = {"small": [0.0, 1.0] * (n // 2), "large": [1.0] * n}
    constant = Replay([0.5] * n, quality)
    assert constant.calibrate(min_quality=1).fit.strong_share == 1
    assert constant.calibrate(max_strong_share=0.9).fit.strong_share == 0
    missing = Replay([None] * n, quality)
    assert missing.calibrate(min_quality=1).held_out.strong_share == 1
    with pytest.raises(SetupError, match=r"no thresholds keep 50% strong: the least is .* 100% strong"):
        missing.calibrate(max_strong_share=0.5)


def test_what_is_said_in_the_end() -> None:
    """Both parts' figures, each tier alone, what was left out, and a file to keep."""
    replay = sample(200)
    quality = replay.quality.copy()
    quality.iloc[:5, 1] = np.nan
    holed = Replay(replay.scores, quality, replay.costs, pipeline=replay.pipeline)
    found = holed.calibrate(max_cost=0.05)
    assert isinstance(found, Calibration)
    assert (holed.n_left_out, len(holed), found.parts.isna().sum()) == (5, 195, 5)
    said = repr(found)
    assert said.startswith("accept_above = 0.")
    for words in ("fit:      quality", "held out: quality", "middle alone", "5 rows are left out"):
        assert words in said
    assert tuple(tomllib.loads(found.to_toml())["accept_above"]) == found.thresholds
    assert found.curve["cost"].notna().all()
    assert list(found.curve.columns) == ["threshold", "strong_share", "quality", "cost"]
    assert found.alone.loc["middle", "strong_share"] == 1


@unhurried
@given(logs)
def test_a_replays_curve_is_the_curve_of_its_scores(log: list[tuple[Any, ...]]) -> None:
    """A route's is that of ``curve``; a cascade goes on where the score is low, so its scores are turned round."""
    said, weak, strong = columns(log)
    quality = {"small": weak, "large": strong}
    route = moa.Pipeline(strategy="route", router={"column": "s"})
    for replay, scores in (
        (Replay(said, quality, pipeline=route), said),
        (Replay(said, quality), [None if score is None else -score for score in said]),
    ):
        mine, other = replay.curve(), curve(scores, weak, strong)
        figures = ["strong_share", "quality"]
        assert np.allclose(mine[figures].to_numpy(), other[figures].to_numpy())


def test_what_a_strong_model_alone_would_do_may_be_unknown() -> None:
    """Where the base agrees nobody asked it, and nothing is said of it."""
    agrees = [True, False] * 20
    replay = Replay(
        [1.0 if one else 0.5 for one in agrees],
        {"base": [float(one) for one in agrees], "oracle": [None if one else 1.0 for one in agrees]},
        pipeline="pyramid",
    )
    found = replay.calibrate(min_quality=1)
    assert (found.held_out.quality.mean, found.notes) == (1, ())
    assert "oracle alone, held out: unknown" in repr(found)
    assert replay.alone(1).quality.mean is None


# What cannot be replayed --------------------------------------------------------------------------


def test_rows_that_stopped_early_say_how_to_log_them() -> None:
    """Their later answers are unknown; leaving such rows out would choose on the hard ones alone."""
    frame = pd.DataFrame({"q": ["a", "bb", "ccc"]})
    recipe = moa.Pipeline(
        strategy="cascade", tiers=[tier("small"), tier("large")], scorer=lambda *_: 0.8, accept_above=0.7
    )
    run = frame.moa.start.synthesize("q", pipeline=recipe, cache="off")
    with pytest.raises(SetupError, match=r"3 of 3 rows stopped .* log a run with accept_above=math\.inf, or each tier"):
        Replay.of(run, recipe, metric=len)
    route = moa.Pipeline(strategy="route", ways=[tier("small"), tier("large")], router=lambda _: 0.3)
    run = frame.moa.start.synthesize("q", pipeline=route, cache="off")
    with pytest.raises(SetupError, match=r"asks one tier a row: log each tier over the sample"):
        Replay.of(run, route, metric=len)
    runs = {
        name: frame.moa.start.synthesize("q", pipeline=moa.Pipeline(layers=[[tier(name)]]), cache="off")
        for name in ("small", "large")
    }
    with pytest.raises(SetupError, match=r"pass scores=, what its router says"):
        Replay.of(runs, route, metric=len)
    replay = Replay.of(runs, route, metric=len, scores=[0.1, 0.5, 0.9])
    assert replay.ends(0.5).tolist() == [0, 1, 1]
    with pytest.raises(SetupError, match="same rows"):
        Replay.of(
            {**runs, "x": frame.head(2).moa.start.synthesize("q", pipeline="single", aggregator=tier("small"))}, route
        )


def test_tiers_that_are_pipelines_are_logged_by_their_own_verb() -> None:
    """What they answer stands nowhere apart from their calls."""
    recipe = moa.Pipeline(
        strategy="cascade", tiers=[tier("small"), {"pipeline": "single"}], scorer=lambda *_: 0.1, accept_above=math.inf
    )
    run = pd.DataFrame({"q": ["a"]}).moa.start.synthesize("q", pipeline=recipe, aggregator=tier("large"), cache="off")
    with pytest.raises(SetupError, match="tier 2 is a pipeline of its own"):
        Replay.of(run, recipe, metric=len)


def test_a_row_whose_strong_model_failed_is_left_out() -> None:
    """Nobody knows how good its answer would have been."""

    def fragile(prompt: str) -> str:
        if "b" in prompt:
            raise ValueError(prompt)
        return "fine"

    recipe = moa.Pipeline(
        strategy="cascade", tiers=[tier("small"), fragile], scorer=lambda *_: 0.5, accept_above=math.inf
    )
    run = pd.DataFrame({"q": ["a", "b", None]}).moa.start.synthesize("q", pipeline=recipe, cache="off").wait()
    replay = Replay.of(run, recipe, metric=len)
    assert (len(replay), replay.n_left_out, replay.rows.tolist()) == (1, 2, [0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"quality": {"a": [1]}}, "two or more"),
        ({"scores": [[0.1, 0.2]]}, r"scores: 1 column\(s\) for 2 tiers, not 2"),
        ({"scores": [0.1, 0.2]}, "of the same rows as quality"),
        ({"scores": ["high"]}, "have to be numbers"),
        ({"scores": [math.inf]}, "finite"),
        ({"costs": {"x": [1], "y": [1]}}, "costs have the columns of quality"),
        ({"quality": {"a": [1], "b": [None]}}, "none of the 1 rows has all"),
        ({"quality": {"a": [1], "b": [1], "c": [1]}, "scores": [[0.1, 0.2]]}, "has 2 tiers, and quality 3 columns"),
        ({"pipeline": "debate"}, "no threshold to calibrate"),
        ({"pipeline": "route"}, "names a way and needs no threshold"),
    ],
)
def test_tables_that_do_not_fit_are_refused(arguments: dict[str, Any], said: str) -> None:
    """In one line that says what to do."""
    with pytest.raises(SetupError, match=said):
        Replay(**{"scores": [0.1], "quality": {"a": [1], "b": [0]}, **arguments})


def test_thresholds_that_do_not_fit_are_refused() -> None:
    """As many as gates; a route's rise. A cascade takes one for all, and the last tier's own."""
    replay = sample(30, n_tiers=3)
    assert (replay.ends(0.5) == replay.ends([0.5, 0.5])).all()
    assert (replay.ends([0.5, 0.5, 0.9]) == replay.ends(0.5)).all()
    assert (replay.ends() == replay.ends(0.7)).all()
    with pytest.raises(SetupError, match="accept_above: 2 for 3 tiers, not 1"):
        replay.at([0.5])
    with pytest.raises(SetupError, match="accept_above: 2 for 3 tiers, not 4"):
        replay.at([0.5] * 4)
    for nonsense in (math.nan, [0.5, math.nan], "high"):
        with pytest.raises(SetupError, match="a threshold is a number"):
            replay.at(nonsense)  # type: ignore[arg-type]  # that is the point
    for wish in (math.nan, math.inf, "best"):
        with pytest.raises(SetupError, match="min_quality is a number"):
            replay.calibrate(min_quality=wish)  # type: ignore[arg-type]  # as above
    ways = moa.Pipeline(strategy="route", ways=["lab:a", "lab:b", "lab:c"], router={"column": "s"})
    route = Replay([0.1], {"a": [1], "b": [1], "c": [1]}, pipeline=ways)
    with pytest.raises(SetupError, match="rise"):
        route.at([0.7, 0.3])


TWO_TIERS = [
    moa.Pipeline(strategy="cascade", tiers=["lab:a", "lab:b"]),
    moa.Pipeline(strategy="route", ways=["lab:a", "lab:b"], router={"column": "s"}),
    moa.Pipeline(strategy="automix", tiers=["lab:a", "lab:b"], hopeless_below=0.25),
    moa.Pipeline(strategy="consistency-cascade", tiers=["lab:a", "lab:b"]),
    moa.Pipeline(strategy="pyramid"),
]


@unhurried
@given(
    st.sampled_from(TWO_TIERS),
    st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 1, math.nan]), st.floats(0, 1), st.floats(0, 1)), min_size=1),
)
def test_the_sweep_of_one_gate_is_what_each_threshold_gives(recipe: moa.Pipeline, rows: list[Any]) -> None:
    """The curve of two tiers is swept at once, and has the figures of every threshold by itself."""
    scores, weak, strong = map(list, zip(*rows, strict=True))
    replay = Replay(scores, {"a": weak, "b": strong}, {"a": strong, "b": weak}, pipeline=recipe)
    candidates = [*replay.candidates()[0], (0.1,), (0.25,), (0.7,), (1.0,)]
    for one, (_, line) in zip(candidates, replay.curve(candidates).iterrows(), strict=True):
        alone = replay.at(one)
        assert alone.cost is not None
        assert [alone.strong_share, alone.quality.mean, alone.cost.mean] == pytest.approx(line.tolist()[1:])


def test_a_taught_router_is_replayed_with_what_it_says() -> None:
    """Three lines: teach it, let it speak, calibrate it; what comes out runs."""
    questions = ["prove this lemma", "say hello", "prove that theorem", "say thanks"] * 10
    nearest = Nearest(examples=[("prove it", 1.0), ("say it", 0.0)], k=1)
    recipe = moa.Pipeline(strategy="route", ways=[tier("small"), tier("large")], router=nearest)
    said = [nearest.word(question) for question in questions]
    hard = ["prove" in question for question in questions]
    replay = Replay(said, {"small": [not one for one in hard], "large": [True] * 40}, pipeline=recipe)
    found = replay.calibrate(min_quality=1)
    assert found.held_out.quality.mean == 1
    assert [moa.run(q, pipeline=found.pipeline).text.split()[0] for q in questions[:2]] == ["large", "small"]
