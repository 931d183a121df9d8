"""A search that ends without extra zeros in any row looks again from where the zeros of the response lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ranef as rf
from ranef.engines import extra_zeros, laplace


def zeros_at_small(seed: int) -> dict[str, Any]:
    """Geometric counts, with extra zeros where z is next to 0."""
    r = np.random.default_rng(seed)
    z = r.negative_binomial(1, 0.1, 250)
    r.integers(0, 15, 250)  # of other responses
    count = r.negative_binomial(1, 1 / (1 + np.exp(0.2 + 0.03 * z)))
    return {"y": count * (r.random(250) > 1 / (1 + np.exp(1.0 + 1.0 * z))), "z": z}


CALL: dict[str, Any] = {"family": "nbinom2", "dispersion": 1, "zero_inflation": "~ z"}


def test_zeros_of_a_few_rows_are_found() -> None:
    m = rf.fit("y ~ z", zeros_at_small(106), **CALL)
    assert m.converged
    # pscl 1.5.5, zeroinfl(dist = "geometric"), and glmmTMB 1.1.5; without extra zeros -445.949754
    assert m.loglik == pytest.approx(-445.781396436, abs=1e-6)
    assert m.messages == ()
    assert m.refit(np.asarray(zeros_at_small(106)["y"], float)).loglik == pytest.approx(m.loglik, abs=1e-7)


def test_no_extra_zeros_stay_none() -> None:
    """To be certain of the rows at one end that happen to be 0 always gains a bit: that is no optimum inside."""
    r = np.random.default_rng(37)
    z = r.negative_binomial(1, 0.1, 250)
    m = rf.fit("y ~ z", {"y": r.poisson(np.exp(0.3 + 0.02 * z)), "z": z}, family="poisson", zero_inflation="~ z")
    assert m.converged
    assert [note.code for note in m.messages] == ["at_a_limit"]


def test_searches_that_were_told_where_to_begin_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra_zeros, "restart", lambda *_: pytest.fail("a second search"))
    assert laplace.extra_zeros is extra_zeros
    m = rf.fit("y ~ z", zeros_at_small(106), control={"max_evaluations": 200}, **CALL)
    assert m.loglik == pytest.approx(-445.949754, abs=1e-5)
