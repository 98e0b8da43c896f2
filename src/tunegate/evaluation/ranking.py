"""Several versions in one order, from pairs of their answers. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping

_ROUNDS = 10_000
_PRECISE = 1e-10


def strengths(wins: Mapping[tuple[int, int], float], players: int) -> list[float] | None:
    """The strength of each of `players` by Bradley and Terry, in log-odds around a mean of 0.

    wins: how often the first of a pair won against the second; a tie is half a win for both. None where there is no
    finite answer: some versions won all that they had against the others, or never met them.
    Source: Hunter, MM algorithms for generalized Bradley-Terry models (2004).
    """
    if not all(_is_reached(wins, players, start) for start in range(players)):
        return None
    won = [sum(wins.get((player, other), 0.0) for other in range(players)) for player in range(players)]
    met = [
        [
            (other, wins.get((player, other), 0.0) + wins.get((other, player), 0.0))
            for other in range(players)
            if other != player
        ]
        for player in range(players)
    ]
    odds = [1.0] * players
    for _ in range(_ROUNDS):
        before = odds
        odds = [
            won[player] / sum(times / (before[player] + before[other]) for other, times in met[player])
            for player in range(players)
        ]
        middle = math.exp(sum(map(math.log, odds)) / players)
        odds = [value / middle for value in odds]
        if max(abs(new - old) for new, old in zip(odds, before, strict=True)) < _PRECISE:
            break
    return [math.log(value) for value in odds]


def _is_reached(wins: Mapping[tuple[int, int], float], players: int, start: int) -> bool:
    """Whether wins lead from `start` to everybody."""
    reached = {start}
    while more := {
        loser for (winner, loser), times in wins.items() if times > 0 and winner in reached and loser not in reached
    }:
        reached |= more
    return len(reached) == players
