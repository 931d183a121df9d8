"""Fits to draw, and a canvas without a screen."""

import matplotlib as mpl
import pytest

import ranef as rf

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="session")
def sleep():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.sleepstudy())


@pytest.fixture(scope="session")
def crossed():
    return rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.Penicillin())


@pytest.fixture(scope="session")
def exam():
    """65 groups, more than can be labelled; one of them has two rows."""
    return rf.fit("normexam ~ standLRT + (standLRT | school)", rf.datasets.Exam("polars"))
