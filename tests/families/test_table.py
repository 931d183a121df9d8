"""The table, bad responses, bad specifications and starting values."""

import numpy as np
import pytest

from ranef import _core

TABLE = {f["name"]: f for f in _core.families()}


def test_every_family_says_what_its_parameters_are():
    names = [n for f in TABLE.values() for n in [f["name"], *f["aliases"]]]
    assert len(names) == len(set(names))
    for f in TABLE.values():
        assert f["note"]
        assert f["support"]
        assert f["parameters"][0]["name"] == "mean"
        for p in f["parameters"]:
            assert p["meaning"]
            assert p["link"] in p["links"]


@pytest.mark.parametrize(
    ("spec", "y", "rows"),
    [
        ({"name": "poisson"}, [1.0, 0.5, 2.0, -1.0], [1, 3]),
        ({"name": "gamma"}, [1.0, 0.0, np.nan], [1, 2]),
        ({"name": "gamma", "zero_inflation": True}, [1.0, 0.0, -2.0], [2]),
        ({"name": "beta"}, [0.0, 0.5, 1.0], [0, 2]),
        ({"name": "binomial"}, [0.0, 1.0, 0.5], [2]),
        ({"name": "truncated_poisson"}, [1.0, 0.0], [1]),
        ({"name": "cumulative", "categories": 3}, [0.0, 2.0, 3.0], [2]),
        ({"name": "gaussian"}, [1.0, np.inf], [1]),
    ],
)
def test_bad_responses_are_named(spec, y, rows):
    what, bad, count = _core.family_check(spec, {"y": np.array(y)})
    assert (bad, count) == (rows, len(rows))
    assert "needs" in what


def test_good_responses_pass():
    data = {"y": np.array([0.5, 0.25]), "trials": np.array([2.0, 4.0])}
    assert _core.family_check({"name": "binomial"}, data) is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "nope"}, "no family"),
        ({"name": "poisson", "links": ["nope"]}, "no link"),
        ({"name": "poisson", "links": ["logit"]}, "takes the links"),
        ({"name": "poisson", "links": ["log", "log"]}, "1 predictors"),
        ({"name": "gaussian", "zero_inflation": True}, "no zeros"),
        ({"name": "truncated_beta"}, "counts"),
        ({"name": "poisson", "constants": {"shape": 1.0}}, "no parameter"),
        ({"name": "tweedie", "constants": {"power": 2.5}}, "must be"),
        ({"name": "cumulative"}, "categories"),
        ({}, "name"),
    ],
)
def test_bad_specifications(spec, words):
    with pytest.raises(ValueError, match=words):
        _core.family_start(spec, {"y": np.ones(3)})


@pytest.mark.parametrize("name", sorted(n for n, f in TABLE.items() if "category" not in f["support"]))
def test_starts_are_legal(name):
    y = {"a number strictly between 0 and 1": [0.2, 0.5, 0.9], "a proportion (0 and 1 without trials)": [0.0, 1.0, 1.0]}
    y = np.array(y.get(TABLE[name]["support"], [1.0, 2.0, 7.0]) if "unit" not in name else [0.2, 0.4])
    if name in ("ordered_beta", "zero_one_inflated_beta"):
        y = np.array([0.0, 0.3, 0.6, 1.0])
    start = np.array(_core.family_start({"name": name}, {"y": y}))
    out = _core.family_eval({"name": name}, {"y": y}, np.tile(start, (len(y), 1)), 3)
    assert np.isfinite(out).all()
