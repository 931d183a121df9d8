"""Correlations of Toeplitz structures and their coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ranef.engines.lags import toeplitz_coordinates, toeplitz_correlations


def test_there_and_back():
    x = np.array([0.7, -1.3, 0.2, 2.0])
    assert_allclose(toeplitz_coordinates(toeplitz_correlations(x[None])[0]), x, rtol=1e-10)  # a few divisions by left


@pytest.mark.parametrize(
    "correlations",
    [
        [-0.80622577, 0.3, 0.32249031, -0.82],  # the second and the fourth at the edge, to eight digits
        [1.0, 1.0, 1.0],
        [-1.0, 1.0, -1.0],
        [0.5, -0.5, -1.0, -0.5],
    ],
)
def test_coordinates_at_the_edge_are_numbers(correlations):
    """A structure of less than full rank has finite coordinates, and these its correlations.

    To 1e-6: a coordinate of 1e6 stands for 1 - 5e-13, and errors of what is left grow as its root.
    """
    x = toeplitz_coordinates(np.array(correlations))
    assert np.isfinite(x).all()
    assert_allclose(toeplitz_correlations(x[None])[0], correlations, atol=1e-6)
