"""A ranking of things by votes on pairs, how sure it is, and which pair to ask about next.

Knows: votes, the Bradley-Terry model. Does not know: what is compared, who voted where it is kept.

Sources: Bradley & Terry, "Rank Analysis of Incomplete Block Designs I" (Biometrika, 1952); Hunter,
"MM Algorithms for Generalized Bradley-Terry Models" (Annals of Statistics, 2004), for the graph of
votes that has a finite best fit.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Generic, TypeVar

import numpy as np
from scipy.special import expit, ndtri

Item = TypeVar("Item", bound=Hashable)

CONFIDENCE = 0.95
# What is known before any vote: strengths lie about this far apart, as the standard deviation of
# a normal distribution. Wide enough to shift nothing that votes say, and what never lost stays
# finite.
PRIOR_SPREAD = 3.0
# Of the pairs that are asked about next, drawn at random. Where all are chosen for what they tell,
# intervals hold the truth less often than they say: in 86 % of 150 simulated rankings of 8 things
# after 60 votes; with half of them at random in 93 %, and the best is found as often or more.
RANDOM_SHARE = 0.5
MAX_NEWTON_STEPS = 100
MAX_STEP_CHANGE = 1e-10


@dataclass(frozen=True)
class Vote(Generic[Item]):
    """That somebody liked one thing better than another.

    Attributes:
        winner: What was liked better.
        loser: The other.
        is_tie: Whether both were as good: half a vote for each.
        voter: Who it was; "" where that is not known.
    """

    winner: Item
    loser: Item
    is_tie: bool = False
    voter: str = ""


@dataclass(frozen=True)
class RankedItem(Generic[Item]):
    """A thing in its place.

    Attributes:
        item: The thing.
        strength: The logarithm of its odds against the average thing.
        low: The lower end of the 95 % interval of `strength`.
        high: The upper end.
        num_votes: How many votes it was in.
        win_share: The probability that it is liked better than the average thing, 0 … 1.
    """

    item: Item
    strength: float
    low: float
    high: float
    num_votes: int

    @property
    def win_share(self) -> float:
        return float(expit(self.strength))


@dataclass(frozen=True)
class Ranking(Generic[Item]):
    """All things, the best first, and what their order rests on.

    Attributes:
        ranked: The things, the strongest first; equal ones in the order they were given in.
        covariance: Of the strengths, (n, n), in the order of `ranked`.
        num_votes: How many votes there were.
    """

    ranked: tuple[RankedItem[Item], ...]
    covariance: np.ndarray
    num_votes: int

    def compare(self, first: int, second: int) -> tuple[float, float]:
        """Return by how much one place is stronger than another, and the standard error of that.

        Args:
            first: Counts from 0, the best.
            second: As `first`.
        """
        difference = self.ranked[first].strength - self.ranked[second].strength
        return difference, math.sqrt(max(_get_variance(self.covariance, first, second), 0.0))

    def is_certain(self, first: int, second: int, confidence: float = CONFIDENCE) -> bool:
        """Return whether votes carry that one place is before another."""
        difference, error = self.compare(first, second)
        return difference > _get_quantile(confidence) * error

    def count_missing_votes(self, confidence: float = CONFIDENCE) -> int | None:
        """Return about how many more votes would make the first place certain.

        It supposes that the votes to come say the same as those that are there, on pairs of the
        same kind: errors shrink with the root of their number. 0 if it is certain already; None if
        no number can be said: without votes, or where the first two are alike.
        """
        if len(self.ranked) < 2 or not self.num_votes:
            return None
        missing = 0
        for place in range(1, len(self.ranked)):
            difference, error = self.compare(0, place)
            wanted = difference / _get_quantile(confidence)
            if error < wanted:
                continue
            if wanted < error / 100:  # ten thousand times as many votes
                return None
            missing = max(missing, math.ceil(self.num_votes * ((error / wanted) ** 2 - 1)))
        return missing


def rank_by_votes(
    items: Sequence[Item], votes: Iterable[Vote[Item]], confidence: float = CONFIDENCE
) -> Ranking[Item]:
    """Rank things by the Bradley-Terry model.

    That a wins against b has the odds exp(strength of a - strength of b). The strengths are those
    under which the votes are likeliest, given a wide prior (`PRIOR_SPREAD`); intervals are the
    normal ones by the curvature there. They hold for pairs that were drawn at random; pairs that
    were chosen for what they tell make them a little too narrow or too wide.

    Args:
        items: The things, each once.
        votes: On two of them each.
        confidence: Of the intervals, between 0 and 1.

    Raises:
        ValueError: A vote is about something else, or about one thing alone.
    """
    places = {item: place for place, item in enumerate(items)}
    wins = np.zeros((len(items), len(items)))
    counts = np.zeros(len(items), dtype=int)
    num_votes = 0
    for vote in votes:
        if vote.winner not in places or vote.loser not in places or vote.winner == vote.loser:
            raise ValueError(f"No vote on two of the things: {vote}")
        first, second = places[vote.winner], places[vote.loser]
        wins[first, second] += 0.5 if vote.is_tie else 1.0
        wins[second, first] += 0.5 if vote.is_tie else 0.0
        counts[[first, second]] += 1
        num_votes += 1
    strengths, covariance = _fit(wins)
    errors = np.sqrt(np.clip(np.diag(covariance), 0, None)) * _get_quantile(confidence)
    order = sorted(range(len(items)), key=lambda place: -strengths[place])
    ranked = tuple(
        RankedItem(
            items[place],
            float(strengths[place]),
            float(strengths[place] - errors[place]),
            float(strengths[place] + errors[place]),
            int(counts[place]),
        )
        for place in order
    )
    return Ranking(ranked, covariance[np.ix_(order, order)], num_votes)


def _fit(wins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest strengths, with a mean of 0, and their covariance.

    Newton's method: the logarithm of the likelihood is concave, and the prior makes it strictly so.

    Args:
        wins: (n, n); how often the thing of a row won against that of a column.
    """
    num_items = len(wins)
    strengths = np.zeros(num_items)
    games = wins + wins.T
    prior = np.eye(num_items) / PRIOR_SPREAD**2
    information = prior
    if not num_items:
        return strengths, information
    for _ in range(MAX_NEWTON_STEPS):
        expected = expit(strengths[:, None] - strengths[None, :])
        gradient = (wins - games * expected).sum(1) - prior @ strengths
        weights = games * expected * (1 - expected)
        information = np.diag(weights.sum(1)) - weights + prior
        step = np.linalg.solve(information, gradient)
        # Far from the best a whole step may overshoot: at most by as much as carries to the next.
        strengths = strengths + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < MAX_STEP_CHANGE:
            break
    # Only differences mean anything: the strength of the average thing is 0, and known.
    centering = np.eye(num_items) - 1 / num_items
    covariance = centering @ np.linalg.inv(information) @ centering
    return strengths - strengths.mean(), covariance


def choose_pair(
    ranking: Ranking[Item], rng: random.Random, asked: Iterable[tuple[Item, Item]] = ()
) -> tuple[Item, Item] | None:
    """Return the pair to ask about next; None if there is none left.

    As often as `RANDOM_SHARE` says any pair; else the one whose vote would tell most: where the
    vote is most open and the difference least known, by p (1 - p) times the variance of the
    difference (the gain of a D-optimal design, to its first order). Of equal ones that of the best
    places. Which of the two is named first is drawn, too.

    Args:
        ranking: What is known so far.
        rng: Draws.
        asked: Pairs that are not asked about again, in either order.
    """
    left_out = {frozenset(pair) for pair in asked}
    pairs = [
        (first, second)
        for first, second in combinations(range(len(ranking.ranked)), 2)
        if frozenset((ranking.ranked[first].item, ranking.ranked[second].item)) not in left_out
    ]
    if not pairs:
        return None

    def estimate_gain(pair: tuple[int, int]) -> float:
        difference, error = ranking.compare(*pair)
        share = float(expit(difference))
        return round(share * (1 - share) * error**2, 9)

    is_random = rng.random() < RANDOM_SHARE
    pair = rng.choice(pairs) if is_random else max(pairs, key=estimate_gain)
    places = list(pair)
    rng.shuffle(places)
    first, second = (ranking.ranked[place].item for place in places)
    return first, second


@dataclass(frozen=True)
class Agreement:
    """How far several people voted alike.

    Attributes:
        num_pairs: On how many pairs at least two of them voted.
        num_voters: How many of them voted on such a pair.
        share: How often two of them chose the same, 0 … 1; ties count half.
        kappa: `share` beyond chance: 1 is always, 0 is as by throwing a coin, below 0 is less.
    """

    num_pairs: int
    num_voters: int
    share: float

    @property
    def kappa(self) -> float:
        return 2 * self.share - 1


def measure_agreement(votes: Iterable[Vote[Item]]) -> Agreement | None:
    """Return how far people agree on the pairs that two of them or more voted on.

    Of each such pair all couples of voters count, and all pairs alike. Someone's last vote on a
    pair is the one that counts; votes of nobody known are left out. None if there is no such pair.
    """
    by_pair: dict[frozenset[Item], dict[str, Item | None]] = defaultdict(dict)
    for vote in votes:
        if not vote.voter:
            continue
        chosen = None if vote.is_tie else vote.winner
        by_pair[frozenset((vote.winner, vote.loser))][vote.voter] = chosen
    shared = [choices for choices in by_pair.values() if len(choices) > 1]
    if not shared:
        return None
    shares = [_measure_likeness(choices) for choices in shared]
    voters = {voter for choices in shared for voter in choices}
    return Agreement(len(shared), len(voters), sum(shares) / len(shares))


def _measure_likeness(choices: Mapping[str, Item | None]) -> float:
    """Return the share of couples who chose the same; a tie and a choice are half of that."""
    couples = list(combinations(choices.values(), 2))
    alike = sum(_compare_choices(*couple) for couple in couples)
    return alike / len(couples)


def _compare_choices(first: Item | None, second: Item | None) -> float:
    if first == second:
        return 1.0
    return 0.5 if first is None or second is None else 0.0


def _get_variance(covariance: np.ndarray, first: int, second: int) -> float:
    """Return the variance of the difference of two strengths."""
    return float(
        covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    )


def _get_quantile(confidence: float) -> float:
    """Return how many standard errors an interval reaches to each side."""
    return float(ndtri((1 + confidence) / 2))
