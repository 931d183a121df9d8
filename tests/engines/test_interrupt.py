"""Ctrl-C ends a long search with KeyboardInterrupt, and the model it leaves behind says that it is not fitted."""

from __future__ import annotations

import signal
import time
from threading import Timer

import numpy as np
import pytest

import ranef as rf
from ranef import _core

DELAY = 0.02  # seconds from the start of the search to the signal


def crossed(rows, levels, threads=0):
    """Return the core of a model of two random crossed factors, and its columns."""
    rng = np.random.default_rng(7)
    codes = [np.r_[np.arange(k), rng.integers(0, k, rows - k)].astype(np.int32) for k in levels]
    y = sum(rng.normal(size=k)[c] for c, k in zip(codes, levels, strict=True)) + rng.normal(size=rows)
    one = (None, None, np.ones(rows))
    terms = [(c, k, "us", [one]) for c, k in zip(codes, levels, strict=True)]
    return _core.Lmm([one], terms, y, threads=threads), [one], terms, y


def interrupted(work):
    """Raise SIGINT during `work`; return how long it still ran, or None if it was not cut short."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer, start, ended = Timer(DELAY, signal.raise_signal, [signal.SIGINT]), time.perf_counter(), False
    try:
        timer.start()
        work()
        ended = True
        timer.join()
        time.sleep(0.5)  # the signal never lands outside of this block
    except KeyboardInterrupt:
        return None if ended else time.perf_counter() - start - DELAY
    finally:
        signal.signal(signal.SIGINT, before)
    return None


def test_a_long_fit_stops():
    # One thread and a dense root of 2000: some tenths of a second an evaluation, which is itself cut short.
    core, *_ = crossed(60_000, (2500, 2000), threads=1)
    assert interrupted(lambda: core.fit(True)) is not None
    with pytest.raises(ValueError, match="not been fitted"):
        core.cond_cov(0)
    assert core.fit(True)["outcome"] == "converged"


def test_a_long_hessian_stops_and_the_fit_is_still_there():
    core, *_ = crossed(60_000, (2500, 2000), threads=1)
    core.fit(True)
    theta = np.ones(2)
    core.evaluate(theta, True)
    variances = core.cond_cov(0)
    assert interrupted(lambda: core.hessian(theta, 1.0, True)) is not None
    # The same theta has been factorised anew, by the same operations.
    assert np.array_equal(core.cond_cov(0), variances)


def test_conditional_covariances_stop_and_can_be_asked_for_again():
    core, *_ = crossed(60_000, (4000, 3500), threads=1)
    core.evaluate(np.ones(2), True)
    assert interrupted(lambda: core.cond_cov(0)) is not None
    assert np.isfinite(core.cond_cov(0)).all()


def test_variances_of_predictions_stop_and_can_be_asked_for_again():
    # One thread, and a tail of 2000 that is inverted first for so many rows.
    core, fixed, terms, _ = crossed(60_000, (2500, 2000), threads=1)
    core.evaluate(np.ones(2), True)
    few = [(codes[:50], levels, "us", [(None, None, np.ones(50))]) for codes, levels, *_ in terms]
    short = [(None, None, np.ones(50))]
    before = core.predict_var(short, few, 50, [True, True])
    late = interrupted(lambda: core.predict_var(fixed, terms, 60_000, [True, True]))
    assert late is not None
    assert late < 2
    assert np.array_equal(core.predict_var(short, few, 50, [True, True]), before)


def test_a_long_fit_tells_how_far_it_is():
    core, *_ = crossed(60_000, (2500, 2000), threads=1)
    told: list[tuple[int, float]] = []
    found = core.fit(True, None, {"onlooker": lambda *at: told.append(at)})
    counts, least = zip(*told, strict=True)
    assert list(counts) == sorted(counts)
    assert 0 < counts[-1] <= found["evaluations"]
    assert least[-1] >= found["criterion"]  # the criterion is what a fit reports, not one of the core's own units


def test_what_an_onlooker_raises_ends_the_fit():
    core, *_ = crossed(60_000, (2500, 2000), threads=1)

    def enough(*_: float) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        core.fit(True, None, {"onlooker": enough})
    assert core.fit(True)["outcome"] == "converged"


def test_a_long_fit_of_counts_stops_and_so_do_its_standard_errors():
    # One thread: some tenths of a second for the fit, and as much for its Hessian.
    rng = np.random.default_rng(9)
    g, x = rng.integers(0, 3000, 60_000), rng.normal(size=60_000)
    y = rng.poisson(np.exp(0.5 * rng.normal(size=3000)[g] + 0.3 * x))
    call = ("y ~ x + (x | g)", {"y": y, "x": x, "g": g})
    assert interrupted(lambda: rf.fit(*call, family="nbinom2", threads=1)) is not None
    m = rf.fit(*call, family="nbinom2", threads=1)
    assert interrupted(m.core.vcov) is not None
    again = rf.fit(*call, family="nbinom2", threads=1).core.vcov()
    # The mode has been found anew, to the inner search's tolerance (1e-9 in its squared decrement).
    np.testing.assert_allclose(m.core.vcov(), again, rtol=1e-3)


def test_many_refits_stop():
    core, fixed, terms, y = crossed(2000, (300, 200))
    responses = np.asfortranarray(y[:, None] + np.random.default_rng(8).normal(size=(len(y), 6000)))
    late = interrupted(lambda: core.refit(responses, fixed, terms))
    assert late is not None
    assert late < 5  # tenths on a quiet machine, where all of them take 14
