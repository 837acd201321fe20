"""Linear assignment: which pairs are worth most together, each row and column used once at most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pairs = list[tuple[int, int]]


def best_pairs(gains: NDArray[np.float64]) -> Pairs:
    """The pairs (row, column) with the largest sum of gains, by row; pairs that gain nothing are left out.

    Successive shortest augmenting paths, O(rows² · columns): D. F. Crouse, "On implementing 2D rectangular assignment
    algorithms", IEEE Transactions on Aerospace and Electronic Systems 52(4), 2016. Rows and columns without a gain are
    set aside first: few boxes of a frame touch.

    Args:
        gains: [rows, columns]; what is not above 0 is never taken.
    """
    rows, columns = np.flatnonzero((gains > 0).any(axis=1)), np.flatnonzero((gains > 0).any(axis=0))
    if not len(rows):
        return []
    cost = -np.maximum(gains[np.ix_(rows, columns)], 0)
    if len(rows) <= len(columns):
        chosen = list(enumerate(_columns_of_rows(cost)))
    else:
        chosen = [(row, column) for column, row in enumerate(_columns_of_rows(cost.T))]
    return sorted((int(rows[i]), int(columns[j])) for i, j in chosen if cost[i, j] < 0)


def _columns_of_rows(cost: NDArray[np.float64]) -> list[int]:
    """The column of each row for the least total cost; there are at least as many columns as rows."""
    n_rows, n_columns = cost.shape
    best: list[int] = cost.argmin(axis=1).tolist()
    if len(set(best)) == n_rows:  # nobody is in another's way, as in most frames
        return best
    of_rows, of_columns = np.zeros(n_rows), np.zeros(n_columns)  # the dual variables
    row_of = np.full(n_columns, -1)
    column_of = np.full(n_rows, -1)
    for start in range(n_rows):
        length = np.full(n_columns, np.inf)  # of the shortest path to each column
        came_from = np.full(n_columns, -1)
        seen = np.zeros(n_columns, bool)
        row, reached, travelled = start, [start], 0.0
        while True:
            through = travelled + cost[row] - of_rows[row] - of_columns
            shorter = ~seen & (through < length)
            length[shorter], came_from[shorter] = through[shorter], row
            column = int(np.argmin(np.where(seen, np.inf, length)))
            travelled = float(length[column])
            seen[column] = True
            if row_of[column] < 0:
                break
            row = int(row_of[column])
            reached.append(row)
        others = reached[1:]
        of_rows[start] += travelled
        of_rows[others] += travelled - length[column_of[others]]
        of_columns[seen] -= travelled - length[seen]
        while True:  # along the path each row gives up its column for the one it came to
            row = int(came_from[column])
            row_of[column], column_of[row], column = row, column, int(column_of[row])
            if row == start:
                break
    return [int(column) for column in column_of]
