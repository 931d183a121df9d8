"""Threads that ask one fit at once get what one thread gets: no borrowed core, no answer from another's place."""

from __future__ import annotations

import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf

THREADS = 8


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    n = 1500
    x, g, h = rng.normal(size=n), rng.integers(0, 120, n), rng.integers(0, 90, n)
    y = x + rng.normal(size=120)[g] + rng.normal(size=90)[h] + rng.normal(size=n)
    return pd.DataFrame({"x": x, "g": g, "h": h, "y": y, "b": (y > 0) * 1.0})


def numbers(frame):
    return frame.select_dtypes("number").to_numpy(float)


QUESTIONS = {
    "conditional": lambda m, _: numbers(m.tidy(effects="ran_vals")),
    "predict": lambda m, d: numbers(m.predict(d.head(5), interval="confidence")),
    "fixed": lambda m, _: numbers(m.tidy(effects="fixed")),
    "pickle": lambda m, _: pickle.loads(pickle.dumps(m)).theta,
}
LINEAR = {
    "kenward-roger": lambda m, _: numbers(m.tidy(effects="fixed", ddf="kenward-roger")),
    "information": lambda m, _: numbers(rf.confint(m, method="profile", which=["x"])),
}
MODELS = {
    "linear": ("y ~ x + (x | g) + (1 | h)", {}, LINEAR),
    "generalised": (
        "b ~ x + (1 | g)",
        {"family": "binomial"},
        {"profile": lambda m, _: numbers(rf.confint(m, method="profile"))},
    ),
    "held": ("b ~ x + (1 | g)", {"family": "binomial", "fixed": {"x": 1.0}}, {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_answers_of_threads_are_those_of_one(data, name):
    formula, options, own = MODELS[name]
    questions = QUESTIONS | own
    m = rf.fit(formula, data, **options)
    wanted = {q: ask(m, data) for q, ask in questions.items()}
    fresh = pickle.loads(pickle.dumps(m))  # remembers no answer; its core is made when somebody asks

    def work(seed):
        order = np.random.default_rng(seed).permutation(list(questions))
        return {str(q): questions[str(q)](fresh, data) for q in order}

    with ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(work, range(THREADS)))
    for one in found:
        for q, answer in one.items():
            # A core that came back has solved again from where it was: rounding of its sums
            assert_allclose(answer, wanted[q], rtol=1e-8, atol=1e-10, err_msg=q)


def test_a_core_goes_with_its_fit(data):
    m = rf.fit("y ~ x + (1 | g)", data)
    m.tidy(effects="ran_vals")
    core = weakref.ref(m.core)
    gc.disable()
    try:
        del m
        assert core() is None  # memory of a large fit must not wait for the collector of cycles
    finally:
        gc.enable()
