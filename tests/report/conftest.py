"""Fits that several tests read; none of them changes one."""

import pytest

import ranef as rf

AWKWARD = "y_mis ~ x1 + x2_mis + x3 + f + (1 | a) + (1 | b)"


@pytest.fixture(scope="session")
def sleep():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.sleepstudy())


@pytest.fixture(scope="session")
def awkward():
    """Rows dropped for two columns, a linearly dependent column, weights and an offset."""
    return rf.fit(AWKWARD, rf.datasets.sim_crossed("polars"), precision_weights="w", offset="off", method="ml")


@pytest.fixture(scope="session")
def flat():
    """A variance of zero."""
    return rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.Dyestuff2())


@pytest.fixture(scope="session")
def plain():
    """No random effects."""
    return rf.fit("Reaction ~ Days", rf.datasets.sleepstudy())
