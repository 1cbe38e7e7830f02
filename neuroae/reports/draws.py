"""Accuracy against the number of draws that an image gets."""

from collections import Counter
from collections.abc import Sequence
from math import comb
from statistics import fmean

from ..evaluation import Record


def persistent_curve(records: Sequence[Record]) -> list[float]:
    """Share of images that are right in each of k draws, for k = 1 .. E: the mean over all sets of k scoring draws."""
    draws = len(records[0].draws)
    right = [sum(answer == record.label for answer in record.draws) for record in records]
    return [fmean(comb(count, k) / comb(draws, k) for count in right) for k in range(1, draws + 1)]


def majority_curve(records: Sequence[Record]) -> list[float]:
    """Accuracy of the most frequent answer of k draws, for k = 1 .. E.

    The mean over the E sets of k draws that follow each other in a circle, so that every draw counts as often; of
    several answers that are equally frequent, each counts in part.
    """
    draws = len(records[0].draws)
    return [fmean(majority(record, k) for record in records) for k in range(1, draws + 1)]


def majority(record: Record, count: int) -> float:
    circle = record.draws * 2
    return fmean(part_right(circle[start : start + count], record.label) for start in range(len(record.draws)))


def part_right(answers: Sequence[int], label: int) -> float:
    votes = Counter(answers)
    most = max(votes.values())
    winners = [answer for answer, number in votes.items() if number == most]
    return (label in winners) / len(winners)
