"""Options of the engine: what is legal, and what other optimisers find."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from ranef.engines import Control, make_control
from ranef.engines.linear import canonical, cells, theta_lower
from ranef.errors import ArgumentError, DataError, OptionError

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return rf.datasets.load("sleepstudy")


def test_control_from_a_dict_or_itself():
    assert make_control(None) == Control()
    assert make_control({"tolerance": 1e-6, "start": [1, 2]}, threads=2) == Control(
        tolerance=1e-6, start=(1.0, 2.0), threads=2
    )
    given = Control(max_evaluations=7)
    assert make_control(given) is given


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        ({"tolerence": 1}, ArgumentError, "tolerance"),
        (3, ArgumentError, "int"),
        ({"tolerance": 0}, OptionError, "tolerance"),
        ({"max_evaluations": 0}, OptionError, "at least 1"),
        ({"threads": -1}, OptionError, "threads"),
        ({"optimizer": "bobyqa"}, OptionError, "nlopt"),
        ({"tolerance": "small"}, OptionError, "tolerance"),
        ({"max_evaluations": 1e3}, OptionError, "whole"),
        ({"threads": 1.5}, OptionError, "whole"),
        ({"start": ["a"]}, OptionError, "finite"),
        ({"start": [float("nan")]}, OptionError, "finite"),
        ({"start": 3}, OptionError, "finite"),
        ({"optimizer": 3}, OptionError, "newton"),
        ({"optimizer": "scipy"}, OptionError, "scipy:<method>"),
    ],
)
def test_illegal_options_say_what_is_legal(value, error, says):
    with pytest.raises(error, match=says):
        make_control(value)


@pytest.mark.parametrize(
    ("control", "error", "says"),
    [
        ({"optimizer": "scipy:Nelder"}, OptionError, "Nelder-Mead"),
        ({"optimizer": "nlopt:LN_BOBYQ"}, OptionError, "LN_BOBYQA"),
        ({"start": [1.0]}, DataError, "start has 1 values, the model has 3"),
    ],
)
def test_illegal_options_that_need_the_model(sleepstudy, control, error, says):
    if "nlopt" in str(control):
        pytest.importorskip("nlopt")
    with pytest.raises(error, match=says):
        rf.fit(SLEEP, sleepstudy, control=control)


@pytest.mark.parametrize("optimizer", ["scipy:L-BFGS-B", "scipy:BFGS", "scipy:Nelder-Mead", "nlopt:LN_BOBYQA"])
def test_other_optimizers_find_the_same(sleepstudy, optimizer):
    if "nlopt" in optimizer:
        pytest.importorskip("nlopt")
    newton = rf.fit(SLEEP, sleepstudy)
    other = rf.fit(SLEEP, sleepstudy, control={"optimizer": optimizer})
    assert other.certificate.optimizer == optimizer
    assert other.converged
    assert other.criterion == pytest.approx(newton.criterion, abs=1e-6)
    # They stop on small steps of the criterion (1e-10), which is about its square root in theta.
    np.testing.assert_allclose(other.theta, newton.theta, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(other.params, newton.params, rtol=1e-6)


def test_start_values_do_not_change_the_answer(sleepstudy):
    fits = [rf.fit(SLEEP, sleepstudy, control={"start": s}) for s in ([1, 0, 1], [0.1, 0.5, 3], [5, -2, 0.01])]
    criteria = [m.criterion for m in fits]
    np.testing.assert_allclose(criteria, criteria[0], atol=1e-7)


def test_threads_do_not_change_the_answer(sleepstudy):
    one, two = (rf.fit(SLEEP, sleepstudy, threads=k) for k in (1, 2))
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-12)
    assert one.criterion == pytest.approx(two.criterion, rel=1e-13)


def test_too_few_evaluations_warn_and_are_kept_as_data(sleepstudy):
    with pytest.warns(rf.ConvergenceWarning, match="allowed number of evaluations"):
        m = rf.fit(SLEEP, sleepstudy, method="ml", control={"max_evaluations": 2})
    assert not m.converged
    assert m.certificate.outcome.name == "max_evaluations"
    assert [note.code for note in m.messages] == ["not_converged"]


def test_all_fit_compares(sleepstudy):
    table = rf.all_fit(rf.fit(SLEEP, sleepstudy), ["newton", "scipy:BFGS"])
    assert list(table["optimizer"]) == ["newton", "scipy:BFGS"]
    assert table["excess"].min() == 0
    assert table["excess"].max() < 1e-6
    np.testing.assert_allclose(table["Days"], 10.4672859596, rtol=1e-6)


class Term:
    """As much of a term as theta's layout needs."""

    def __init__(self, k, structure):
        self.names, self.structure = tuple(f"c{j}" for j in range(k)), structure


def test_theta_layout():
    assert cells(2, "us") == [(0, 0), (1, 0), (1, 1)]
    assert cells(2, "diag") == [(0, 0), (1, 1)]
    np.testing.assert_array_equal(theta_lower([Term(2, "us"), Term(1, "diag")]), [0, -np.inf, 0, 0])


def test_canonical_theta_has_a_positive_diagonal_and_the_same_covariance():
    flipped = canonical(np.array([-1.0, 2.0, 3.0, -0.5]), [Term(2, "us"), Term(1, "diag")])
    np.testing.assert_array_equal(flipped, [1.0, -2.0, 3.0, 0.5])
