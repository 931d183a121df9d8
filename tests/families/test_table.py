"""The table, bad responses, bad specifications and starting values."""

import numpy as np
import pytest

import ranef as rf
from ranef import _core
from ranef.errors import DataError

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
    ("arguments", "good", "bad", "rows"),
    [
        ({"family": "poisson"}, [1, 0, 2, 3], [1.0, 0.5, 2.0, -1.0], "1, 3"),
        ({"family": "gamma"}, [1, 2, 3, 0.5], [1.0, 0.0, 2.0, -1.0], "1, 3"),
        ({"family": "gamma", "zero_inflation": "~ 1"}, [1, 0, 3, 0.5], [1.0, 0.0, -2.0, 1.0], "2"),
        ({"family": "beta"}, [0.2, 0.5, 0.4, 0.9], [0.0, 0.5, 1.0, 0.4], "0, 2"),
        ({"family": "binomial"}, [0, 1, 1, 0], [0.0, 1.0, 0.5, 1.0], "2"),
        ({"family": "truncated_poisson"}, [1, 2, 4, 1], [1.0, 0.0, 1.0, 2.0], "1"),
        ({"family": "cumulative"}, [1, 2, 3, 2], [0.0, 2.0, 3.0, 1.0], "2"),
    ],
)
def test_responses_that_the_core_cannot_take_are_named(arguments, good, bad, rows):
    """A refit does not read its response as a formula's; what is illegal the core itself finds."""
    m = rf.fit("y ~ 1", {"y": np.array(good)}, **arguments)
    with pytest.raises(DataError, match=f"needs .*: {len(rows.split())} rows?, first {rows}$"):
        m.refit(np.array(bad))


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
