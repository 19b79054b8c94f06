"""Rankings of votes: against scipy's optimiser and simulated voters, who is asked next, who agrees."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from studio.core.comparison.ranking import (
    PRIOR_SPREAD,
    Ranking,
    Vote,
    choose_pair,
    measure_agreement,
    rank_by_votes,
)

NAMES = "abcdefgh"


def simulate(strengths: list[float], num_votes: int, rng: np.random.Generator) -> list[Vote[str]]:
    """Votes on random pairs, by the model."""
    votes = []
    for _ in range(num_votes):
        first, second = rng.choice(len(strengths), 2, replace=False)
        share = 1 / (1 + math.exp(strengths[second] - strengths[first]))
        if rng.random() > share:
            first, second = second, first
        votes.append(Vote(NAMES[first], NAMES[second]))
    return votes


def get_strengths(ranking: Ranking[str]) -> dict[str, float]:
    return {entry.item: entry.strength for entry in ranking.ranked}


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.booleans()).filter(
            lambda vote: vote[0] != vote[1]
        ),
        max_size=30,
    )
)
def test_it_is_what_an_optimiser_finds(drawn: list[tuple[str, str, bool]]) -> None:
    votes = [Vote(*vote) for vote in drawn]

    def loss(strengths: np.ndarray) -> float:
        total = float((strengths**2).sum()) / (2 * PRIOR_SPREAD**2)
        for vote in votes:
            difference = strengths["abcd".index(vote.winner)] - strengths["abcd".index(vote.loser)]
            total += np.logaddexp(0, -difference) * (0.5 if vote.is_tie else 1)
            total += np.logaddexp(0, difference) * (0.5 if vote.is_tie else 0)
        return total

    fitted = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    found = get_strengths(rank_by_votes("abcd", votes))
    expected = dict(zip("abcd", fitted - fitted.mean(), strict=True))
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_true_order_is_found() -> None:
    strengths = [2.0, 1.0, 0.0, -1.0, -2.0]
    votes = simulate(strengths, 1500, np.random.default_rng(1))
    ranking = rank_by_votes(NAMES[:5], votes)
    assert [entry.item for entry in ranking.ranked] == list("abcde")
    assert get_strengths(ranking) == pytest.approx(
        dict(zip("abcde", strengths, strict=True)), abs=0.35
    )
    assert ranking.ranked[0].win_share > 0.8
    assert all(ranking.is_certain(place, place + 1) for place in range(4))
    assert ranking.count_missing_votes() == 0


@pytest.mark.slow
def test_intervals_cover_what_is_true() -> None:
    """Random pairs, 2,000 times: 95 % of the intervals hold the true strength, by 2 % at most."""
    strengths = np.array([0.9, 0.4, 0.0, -0.4, -0.9])
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(2000):
        ranking = rank_by_votes(NAMES[:5], simulate(list(strengths), 120, rng))
        held += sum(
            entry.low <= strengths[NAMES.index(entry.item)] <= entry.high
            for entry in ranking.ranked
        )
    assert 0.93 <= held / (2000 * 5) <= 0.97


def test_what_never_lost_is_finite_and_first() -> None:
    ranking = rank_by_votes("abc", [Vote("a", "b")] * 5 + [Vote("a", "c")] * 5)
    first = ranking.ranked[0]
    assert (first.item, first.num_votes) == ("a", 10)
    assert 0 < first.low < first.strength < first.high < 10
    assert [entry.item for entry in ranking.ranked[1:]] == ["b", "c"]  # alike: as given


def test_a_tie_is_half_a_vote_for_each() -> None:
    even = rank_by_votes("ab", [Vote("a", "b", is_tie=True)] * 8)
    assert get_strengths(even) == pytest.approx({"a": 0, "b": 0}, abs=1e-9)
    split = rank_by_votes("ab", [Vote("a", "b"), Vote("b", "a")] * 4)
    assert even.covariance == pytest.approx(split.covariance)


def test_without_votes_nothing_is_certain() -> None:
    ranking = rank_by_votes("abc", [])
    assert [entry.item for entry in ranking.ranked] == ["a", "b", "c"]
    assert not ranking.is_certain(0, 1)
    assert ranking.count_missing_votes() is None
    assert rank_by_votes("", []).ranked == ()
    assert rank_by_votes("a", []).ranked[0].strength == 0
    for vote in (Vote("a", "x"), Vote("a", "a")):
        with pytest.raises(ValueError, match="No vote on two of the things"):
            rank_by_votes("ab", [vote])


def test_how_many_votes_are_missing_is_about_right() -> None:
    """As many more as it says, at the same shares, and the first place is just certain."""
    votes = [Vote("a", "b")] * 12 + [Vote("b", "a")] * 8
    missing = rank_by_votes("ab", votes).count_missing_votes()
    assert missing is not None
    assert missing > 20
    times = (len(votes) + missing) / len(votes)
    enough = [Vote("a", "b")] * round(12 * times * 1.1) + [Vote("b", "a")] * round(8 * times * 1.1)
    too_few = [Vote("a", "b")] * round(12 * times * 0.8) + [Vote("b", "a")] * round(8 * times * 0.8)
    assert rank_by_votes("ab", enough).is_certain(0, 1)
    assert not rank_by_votes("ab", too_few).is_certain(0, 1)
    alike = rank_by_votes("ab", [Vote("a", "b"), Vote("b", "a")])
    assert alike.count_missing_votes() is None


def test_the_pair_that_tells_most_is_asked_about() -> None:
    # a and b were never compared, and are as good; c is known to be worse than both.
    votes = ([Vote("a", "c")] * 3 + [Vote("b", "c")] * 3) * 3
    ranking = rank_by_votes("abc", votes)
    rng = random.Random(5)
    drawn = Counter(choose_pair(ranking, rng) for _ in range(600))
    told = drawn["a", "b"] + drawn["b", "a"]
    assert 350 <= told <= 450  # half of them for what they tell, and a third of the others
    assert 0.4 <= drawn["a", "b"] / told <= 0.6
    assert len(drawn) == 6
    asked = [("b", "a")]
    assert all("c" in (choose_pair(ranking, rng, asked) or ()) for _ in range(20))
    assert choose_pair(ranking, rng, list(combinations("abc", 2))) is None
    assert choose_pair(rank_by_votes("a", []), rng) is None


@pytest.mark.slow
def test_chosen_pairs_find_the_best_sooner_than_random_ones() -> None:
    """How often the best of eight is first after 60 votes; what choosing does to the intervals."""
    strengths = [1.2, 0.8, 0.4, 0.1, -0.1, -0.5, -0.8, -1.1]
    rng, drawing = np.random.default_rng(3), random.Random(3)
    first_places = {"random": 0, "chosen": 0}
    held = 0
    for _ in range(150):
        ranking = rank_by_votes(NAMES, simulate(strengths, 60, rng))
        first_places["random"] += ranking.ranked[0].item == "a"
        votes: list[Vote[str]] = []
        for _ in range(60):
            pair = choose_pair(rank_by_votes(NAMES, votes), drawing)
            assert pair
            first, second = (strengths[NAMES.index(name)] for name in pair)
            is_first = rng.random() < 1 / (1 + math.exp(second - first))
            votes.append(Vote(*pair) if is_first else Vote(*pair[::-1]))
        chosen = rank_by_votes(NAMES, votes)
        first_places["chosen"] += chosen.ranked[0].item == "a"
        true = dict(zip(NAMES, strengths, strict=True))
        held += sum(entry.low <= true[entry.item] <= entry.high for entry in chosen.ranked)
    print(first_places, held / (150 * 8))
    assert first_places["chosen"] >= first_places["random"]
    assert 0.9 <= held / (150 * 8) <= 0.99


def test_agreement() -> None:
    def votes(voter: str, *winners: str) -> list[Vote[str]]:
        pairs = ("ab", "bc", "ac")
        return [
            Vote(winner, pair.replace(winner, ""), voter=voter)
            for winner, pair in zip(winners, pairs, strict=False)
        ]

    alike = measure_agreement([*votes("ann", "a", "b", "a"), *votes("bob", "a", "b", "a")])
    assert alike
    assert (alike.num_pairs, alike.num_voters, alike.share, alike.kappa) == (3, 2, 1.0, 1.0)
    against = measure_agreement([*votes("ann", "a", "b"), *votes("bob", "b", "c")])
    assert against
    assert against.kappa == -1.0
    # Three people, one of them otherwise: one of three couples agrees.
    three = measure_agreement([*votes("ann", "a"), *votes("bob", "a"), *votes("eve", "b")])
    assert three
    assert three.share == pytest.approx(1 / 3)
    tie = measure_agreement([Vote("a", "b", voter="ann"), Vote("b", "a", True, "bob")])
    assert tie
    assert tie.kappa == 0
    ties = measure_agreement([Vote("a", "b", True, "ann"), Vote("b", "a", True, "bob")])
    assert ties
    assert ties.kappa == 1
    assert measure_agreement([Vote("a", "b"), Vote("b", "a"), *votes("ann", "a")]) is None
    # A change of mind counts once; alone nobody agrees with anybody.
    assert measure_agreement([*votes("ann", "a"), *votes("ann", "b")]) is None
    assert measure_agreement([]) is None
