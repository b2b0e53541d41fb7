"""The best lower bound that a few dual points give together.

Any mean of matrices X_t of trace 1 is one of them, and any mean of Y_t too; what counts is the largest entry of
t·a(X) + a(Y)/t over the edges, divided by their costs. With v and w, the weights times t and 1/t, the best mean is

    maximise Σ_k log(sum of the k-th group of weights)  subject to  A·weights ≤ 1, weights ≥ 0,

which is concave and has a few dozen unknowns, however many edges there are: Newton's method on a logarithmic
barrier [1]_.

.. [1] S. Boyd, L. Vandenberghe. Convex Optimization, section 11.3. Cambridge University Press, 2004.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from topology.problem import Reals

NARROWER = 0.25
LAST_GAP = 1e-5
STEPS = 12


def best_combination(groups: Sequence[Reals]) -> list[Reals]:
    """Weights of every group's columns, each summing to 1, for which the largest row of the sum is smallest.

    Parameters
    ----------
    groups : sequence of ndarray, shape (m, k)
        Not negative. The sum is taken with the best factor for each group.

    Returns
    -------
    list of ndarray, shape (k,)
        Found to a part of about 1e-5; whatever they are, they are weights.
    """
    # Columns of one group are alike; dividing by one scale for a group makes all weights comparable.
    scales = [float(group.max(axis=0).min()) * len(groups) for group in groups]
    matrix = np.hstack([group / scale for group, scale in zip(groups, scales, strict=True)])
    member = np.zeros((len(groups), matrix.shape[1]))
    edges = np.cumsum([0] + [group.shape[1] for group in groups])
    for k in range(len(groups)):
        member[k, edges[k] : edges[k + 1]] = 1
    weights = np.full(matrix.shape[1], 0.9 / float(matrix.sum(axis=1).max()))
    gap = 1.0
    while gap > LAST_GAP:
        gap *= NARROWER
        weights = _centre(matrix, member, weights, gap * len(groups) / (len(matrix) + len(weights)))
    return [weights[row > 0] / (row @ weights) for row in member]


def _centre(matrix: Reals, member: Reals, weights: Reals, barrier: float) -> Reals:
    """Newton's method for max Σ log(sums) + barrier·(Σ log(1 − A w) + Σ log w), from a point inside."""

    def value(weights: Reals) -> float:
        slack = 1 - matrix @ weights
        if min(slack.min(), weights.min()) <= 0:
            return -np.inf
        return float(np.log(member @ weights).sum() + barrier * (np.log(slack).sum() + np.log(weights).sum()))

    now = value(weights)
    for _ in range(STEPS):
        # In relative steps, step = weights·relative, the system is well scaled even where columns hardly differ.
        slack, sums = 1 - matrix @ weights, member @ weights
        scaled = matrix * (weights / slack[:, None])
        shares = member * (weights / sums[:, None])
        slope = shares.sum(axis=0) + barrier * (1 - scaled.sum(axis=0))
        bend = shares.T @ shares + barrier * (np.eye(len(weights)) + scaled.T @ scaled)
        bend += 1e-13 * np.trace(bend) * np.eye(len(bend))
        relative = np.linalg.solve(bend, slope)
        step = weights * relative
        length, gain = 1.0, float(slope @ relative)
        while (ahead := value(weights + length * step)) < now + 0.1 * length * gain and length > 1e-10:
            length /= 2
        if length <= 1e-10:
            break
        weights, now = weights + length * step, ahead
        if gain < 0.1 * barrier * len(weights):
            break
    return weights
