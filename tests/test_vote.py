"""Votes, agreement, likeness and rankings: what holds for every input, and the cases that sources get wrong."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_nb.errors import PipelineError
from moa_nb.pipeline.parse import number
from moa_nb.pipeline.similarity import medoid, similarity, similarity_of_all
from moa_nb.pipeline.verdicts import Outcome, pairs, rank, rank_by_verdicts, settle
from moa_nb.pipeline.vote import agreement, check_tie, normalised, plurality, unanimous

plain = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["a", "B", "b", "1", "1.0", "電"]))
structured = st.recursive(
    plain | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)
values = st.lists(st.one_of(plain, structured), max_size=12)
texts = st.lists(
    st.one_of(st.none(), st.text(max_size=40), st.sampled_from(["Sales fell.", "sales fell", "売上"])), max_size=6
)


# Votes -------------------------------------------------------------------------------------------


def test_the_commonest_value_wins_and_its_shares_are_told_apart() -> None:
    """Five samples 7, 7, 9, nothing, 7: 7 has three of the four valid votes and three of all five."""
    vote = plurality([7, 7, 9, None, 7])
    assert (vote.value, vote.winner, vote.share, vote.share_of_all) == (7, 0, 0.75, 0.6)
    assert (vote.n, vote.n_unparsed, vote.tied) == (5, 1, False)
    assert [(ballot.value, ballot.members, ballot.weight) for ballot in vote.ballots] == [
        (7, (0, 1, 4), 3),
        (9, (2,), 1),
    ]


def test_one_number_in_three_spellings_is_one_value() -> None:
    """A debate that ends in 20, 18, "18.0" and "18." is won by 18, as its first voter wrote it."""
    vote = plurality([20, 18, "18.0", "18."])
    assert (vote.value, vote.winner, vote.share) == (18, 1, 0.75)
    assert plurality([number("-5"), number("5"), number("−5.0")]).value == -5
    assert plurality([number("0.1"), number("1/10"), 0.1]).share == 1


def test_nobody_wins_where_nothing_could_be_read() -> None:
    """Abstentions elect nobody, and are counted."""
    vote = plurality([None, None, math.nan])
    assert (vote.winner, vote.value, vote.share, vote.share_of_all, vote.n_unparsed) == (None, None, 0, 0, 3)
    assert (plurality([]).winner, plurality([]).n) == (None, 0)


def test_ties_go_by_the_declared_rule() -> None:
    """The earliest vote, a named agent's, or nobody; the tie is told in any case."""
    votes, agents = ["x", "y", "y", "x", "z"], ["a", "b", "c", "d", "e"]
    assert plurality(votes).value == "x"
    by_agent = plurality(votes, tie="agent:c", agents=agents)
    assert (by_agent.value, by_agent.winner, by_agent.tied) == ("y", 2, True)
    assert plurality(votes, tie="agent:e", agents=agents).value == "x"
    nobody = plurality(votes, tie="abstain")
    assert (nobody.winner, nobody.tied, nobody.share) == (None, True, 0.4)
    assert plurality(["x", "y", "y"], tie="agent:a", agents=["a", "b", "c"]).winner == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tie": "frist"}, "did you mean 'first'"),
        ({"tie": "agent:"}, "agent:NAME"),
        ({"tie": "agent:alpa", "agents": ["alpha", "beta"]}, "did you mean 'alpha'"),
        ({"weights": [1]}, "2 of them"),
        ({"weights": [1, -1]}, "0 or more"),
        ({"weights": [1, math.inf]}, "finite"),
    ],
)
def test_a_wrong_rule_or_weight_is_one_line(options: dict[str, Any], said: str) -> None:
    """What cannot be is told with the nearest right form."""
    with pytest.raises(PipelineError, match=said):
        plurality(["x", "y"], **options)


def test_a_rule_can_be_checked_before_anyone_votes() -> None:
    """A declaration is checked when it is read; the agents, once they are known."""
    check_tie("agent:anyone")
    with pytest.raises(PipelineError):
        check_tie("agent:anyone", ["somebody"])


def test_weights_decide_and_their_binary_noise_does_not() -> None:
    """A heavy voter beats two light ones, no weight wins nothing, and thrice 0.1 ties with 0.3."""
    assert plurality(["x", "y", "y"], weights=[3, 1, 1]).value == "x"
    assert plurality(["x"], weights=[0]).winner is None
    assert plurality(["x", "y"], weights=[0, 1]).value == "y"
    assert plurality(["y", "x", "x", "x"], weights=[0.3, 0.1, 0.1, 0.1]).tied


@given(values, st.randoms(use_true_random=False))
def test_without_a_tie_the_order_of_votes_is_nothing(votes: list[Any], shuffler: random.Random) -> None:
    """Who is asked first elects nobody."""
    vote = plurality(votes)
    shuffled = list(votes)
    shuffler.shuffle(shuffled)
    again = plurality(shuffled)
    assert (again.share, again.share_of_all, again.n_unparsed, again.tied) == (
        vote.share,
        vote.share_of_all,
        vote.n_unparsed,
        vote.tied,
    )
    if not vote.tied:
        assert normalised(again.value) == normalised(vote.value)


@given(values, st.floats(0.01, 100))
def test_equal_weights_are_none(votes: list[Any], weight: float) -> None:
    """Who weighs all alike has weighed nothing."""
    plain_vote, weighted = plurality(votes), plurality(votes, weights=[weight] * len(votes))
    assert (weighted.winner, weighted.tied) == (plain_vote.winner, plain_vote.tied)
    assert weighted.share == pytest.approx(plain_vote.share)


@given(values)
def test_a_vote_adds_up(votes: list[Any]) -> None:
    """Every vote is in one ballot or unparsed; the winner is a voter for the heaviest value."""
    vote = plurality(votes)
    members = sorted(at for ballot in vote.ballots for at in ballot.members)
    assert members == [at for at, value in enumerate(votes) if normalised(value) is not None]
    assert len(members) + vote.n_unparsed == vote.n == len(votes)
    assert 0 <= vote.share_of_all <= vote.share <= 1
    if members:
        assert vote.winner is not None
        assert vote.value is votes[vote.winner]
        assert vote.winner in {at for ballot in vote.ballots[:1] for at in ballot.members} or vote.tied
    else:
        assert vote.winner is None


@given(values)
def test_unanimity_needs_every_voice(votes: list[Any]) -> None:
    """All are there and one: exactly then the whole vote agrees."""
    assert unanimous(votes) == (plurality(votes).share_of_all == 1)


def test_nothing_read_is_no_consensus() -> None:
    """Three answers that nobody could read agree on nothing."""
    assert not unanimous([None, None, None])
    assert not unanimous([])
    assert unanimous(["Yes", "yes "])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        *((18, "18.0", True), (0.1 + 0.2, "0.3", True), (Fraction(1, 3), 1 / 3, True), (Decimal("2.50"), 2.5, True)),
        *((1_234_567_891, 1_234_567_892, False), (10**20, float(10**20), True), (True, 1, False), ("A", "a", True)),
        *(
            ("1,000", 1000, True),
            ("50%", 50, False),
            ({"a": [1, 2.0]}, {"a": [1.0, "2"]}, True),
            ([1, 2], [2, 1], False),
        ),
        *(({"a": None}, {}, False), ({"x", "y"}, frozenset({"y", "X"}), True), ("naïve", "nai\u0308ve", True)),
        (float("inf"), float("-inf"), False),
        (Fraction(10**400 + 1, 2), Fraction(10**400 + 3, 2), False),
    ],
)
def test_equal_values_have_one_key(one: object, other: object, same: bool) -> None:
    """Numbers by value, text without case, mappings in any order; a yes is no number."""
    assert (normalised(one) == normalised(other)) is same


# Agreement ---------------------------------------------------------------------------------------


def test_agreement_is_what_a_gate_may_trust() -> None:
    """Unparsed answers count against it, whatever the measure."""
    assert agreement([42, 42, 17]) == pytest.approx(2 / 3)
    assert agreement([42, None, None]) == pytest.approx(1 / 3)
    assert agreement([8, 8, None], "spread", scale=9) == pytest.approx(2 / 3)
    assert agreement([1, 10], "spread", scale=9) == 0
    assert agreement([100, 99], "spread") == pytest.approx(0.99)
    assert agreement([0, 0.0], "spread") == 1
    assert agreement([], "spread") == agreement([], "vote") == agreement([], "text") == 0
    assert agreement(["So it is.", "so it is!"], "text") == 1


def test_a_measure_that_does_not_fit_is_one_line() -> None:
    """Words have no spread, and there is no fourth measure."""
    with pytest.raises(PipelineError, match="by='vote'"):
        agreement([1, "two"], "spread")
    with pytest.raises(PipelineError, match="did you mean 'spread'"):
        agreement([1], "spraed")  # type: ignore[arg-type]  # the mistake is the test


@given(
    st.lists(st.one_of(st.none(), st.floats(-1e300, 1e300), st.integers()), max_size=8), st.sampled_from([None, 9.0])
)
def test_a_spread_is_a_share(numbers: list[float | None], scale: float | None) -> None:
    """From 0 to 1, the same in any order and with every sign turned."""
    near = agreement(numbers, "spread", scale=scale)
    assert 0 <= near <= 1
    assert agreement(numbers[::-1], "spread", scale=scale) == near
    turned = [None if value is None else -value for value in numbers]
    assert agreement(turned, "spread", scale=scale) == pytest.approx(near)


# Likeness ----------------------------------------------------------------------------------------


@given(st.text(max_size=80), st.text(max_size=80))
def test_similarity_is_symmetric_and_a_share(one: str, other: str) -> None:
    """From 0 to 1, the same both ways, and 1 for the same text."""
    assert 0 <= similarity(one, other) <= 1
    assert similarity(one, other) == similarity(other, one)
    assert similarity(one, one) == 1


def test_similarity_reads_order_case_and_scripts_without_spaces() -> None:
    """Who bites whom matters, capitals do not, and Chinese needs no spaces."""
    assert similarity("Churn rose.", "churn  rose") == 1
    assert similarity("the dog bites the man", "the man bites the dog") < 1
    assert similarity("电池能用两天", "电池只能用一天") > similarity("电池能用两天", "屏幕很亮") == 0
    assert similarity("", "") == 1
    assert similarity("?!", "...") == similarity("", "a") == 0


@given(texts)
def test_the_medoid_is_one_of_the_texts(candidates: list[str | None]) -> None:
    """A position whose text is there, unless none is; twins change nothing about that."""
    at = medoid(candidates)
    there = [position for position, text in enumerate(candidates) if text and text.strip()]
    assert at in there if there else at is None
    assert 0 <= similarity_of_all(candidates) <= 1


@given(st.lists(st.sampled_from("abcdef").map(lambda letter: f"{letter} " * 3), min_size=2, max_size=4, unique=True))
def test_the_medoid_of_a_majority_is_in_it(others: list[str]) -> None:
    """Where more than half of the texts are one, it is the earliest of those."""
    candidates = [*others, *["the same sentence"] * (len(others) + 1)]
    assert medoid(candidates) == len(others)


# Verdicts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "swapped", "outcome"),
    [
        ("A", "B", Outcome(1.0)),
        ("B", "A", Outcome(0.0)),
        ("C", "C", Outcome(0.5)),
        ("A", "A", Outcome(0.5, position_conflict=True)),
        ("B", "B", Outcome(0.5, position_conflict=True)),
        ("A", "C", Outcome(0.5)),
        ("C", "B", Outcome(0.5)),
        (None, "B", Outcome(None, n_unparsed=1)),
        (None, None, Outcome(None, n_unparsed=2)),
        ("D", "A", Outcome(None, n_unparsed=1)),
    ],
)
def test_two_orders_make_one_outcome(first: str | None, swapped: str | None, outcome: Outcome) -> None:
    """The same winner twice wins; the same place twice is a tie that says so; garbage decides nothing."""
    assert settle(first, swapped) == outcome


letters = st.sampled_from(["A", "B", "C", None])


@given(letters, letters)
def test_settling_knows_no_sides(first: str | None, swapped: str | None) -> None:
    """Seen from the other answer, the points are the rest of 1 and the conflict is the same."""
    here, there = settle(first, swapped), settle(swapped, first)
    assert here.position_conflict == there.position_conflict
    assert (here.points is None) == (there.points is None)
    assert here.points is None or there.points is None or here.points + there.points == 1


@given(st.integers(0, 6), st.data())
def test_a_round_robin_shares_all_points(n: int, data: st.DataObject) -> None:
    """n(n-1) judgements; the scores sum to n/2, the order is a permutation, equals share a rank."""
    asked = pairs(n)
    assert len(asked) == n * (n - 1)
    table = {pair: data.draw(letters) for pair in asked}
    ranking = rank_by_verdicts(n, table)
    assert sum(score or 0 for score in ranking.scores) == pytest.approx(n / 2)
    assert sorted(ranking.order) == list(range(n))
    assert ranking.n_unparsed == list(table.values()).count(None)
    for one in range(n):
        assert ranking.ranks[one] == 1 + sum((score or 0) > (ranking.scores[one] or 0) for score in ranking.scores)


def test_a_consistent_judge_is_followed_in_either_form() -> None:
    """The true order comes out of both orders and of one alone, and a judge who looks at places decides nothing."""
    quality = [3, 1, 4, 2]
    for swap in (True, False):
        table = {(i, j): "A" if quality[i] > quality[j] else "B" for i, j in pairs(4, swap=swap)}
        ranking = rank_by_verdicts(4, table)
        assert (ranking.order, ranking.ranks, ranking.best) == ((2, 0, 3, 1), (2, 4, 1, 3), 2)
    biased = rank_by_verdicts(3, dict.fromkeys(pairs(3), "A"))
    assert (biased.ranks, biased.order, biased.n_conflicts) == ((1, 1, 1), (0, 1, 2), 3)
    assert rank_by_verdicts(2, {(1, 0): "A"}).best == 1
    assert rank_by_verdicts(1, {}).best == 0
    assert rank_by_verdicts(0, {}).best is None


@given(st.lists(st.one_of(st.none(), st.integers(1, 10), st.floats()), max_size=8))
def test_a_ranking_puts_the_best_first_and_the_unscored_last(scores: list[float | None]) -> None:
    """Ranks count who is better; who has no score is never best."""
    ranking = rank(scores)
    known = [score for score in ranking.scores if score is not None]
    assert [ranking.scores[at] for at in ranking.order] == sorted(known, reverse=True) + [None] * (
        len(scores) - len(known)
    )
    assert ranking.n_unparsed == len(scores) - len(known)
    if known:
        assert ranking.best is not None
        assert ranking.scores[ranking.best] == max(known)
        assert ranking.best == ranking.scores.index(max(known))
    else:
        assert ranking.best is None
