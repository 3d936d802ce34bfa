"""How often each patch size is drawn in training: a registry of weights as functions of area, cost and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from .options import Draw

Array = NDArray[np.float64]
Weights = Callable[[Array, Array, float], Array]
"""(areas of the patches relative to 8 x 8, FLOPs of a clip at each, progress of the run from 0 to 1) -> any positive
scale of weights, one per size."""


def uniform(areas: Array, costs: Array, progress: float) -> Array:
    """Every size alike (FlexiAST, section 2): most of the compute goes to the finest sizes."""
    return np.ones_like(areas)


def coarse(areas: Array, costs: Array, progress: float) -> Array:
    """In proportion to the 1.6th power of the side: coarse sizes cost little and gain most from more steps."""
    return areas**0.8


def equal_cost(areas: Array, costs: Array, progress: float) -> Array:
    """The same compute for every size: weights are one over the cost."""
    return 1 / costs


def coarse_to_fine(areas: Array, costs: Array, progress: float) -> Array:
    """From coarse sizes at the start to fine ones at the end (compare arXiv 2401.08415): cheap steps first."""
    return areas ** (COARSE_TO_FINE[0] + (COARSE_TO_FINE[1] - COARSE_TO_FINE[0]) * progress)


COARSE_TO_FINE = (1.25, -0.25)
"""Exponents of the area at the start and at the end of the run."""

DRAWS: dict[Draw, Weights] = {
    "uniform": uniform,
    "coarse": coarse,
    "equal-cost": equal_cost,
    "coarse-to-fine": coarse_to_fine,
}
assert set(DRAWS) == set(get_args(Draw))
