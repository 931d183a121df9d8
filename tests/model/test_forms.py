"""The same data in every form that a frame can take: the same fit, the same predictions for new rows in that form."""

from __future__ import annotations

from decimal import Decimal
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose

import ranef as rf

N, GROUPS = 120, 12
ROWS = [0, 2, 7]


@cache
def data():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(GROUPS), N // GROUPS)
    x, f, trials = rng.normal(size=N).round(3), rng.integers(0, 3, N), rng.integers(2, 9, N)
    eta = 0.3 + 0.4 * x + 0.5 * rng.normal(size=GROUPS)[g]
    p, mu = 1 / (1 + np.exp(-eta)), np.exp(eta)
    y = (eta + 0.6 * rng.normal(size=N)).round(4)
    frame = pd.DataFrame({"g": [f"g{i:02d}" for i in g], "f": np.array(["lo", "mid", "hi"])[f], "x": x, "y": y})
    return frame.assign(
        w=rng.integers(1, 4, N).astype(float),
        n=trials,
        k=rng.binomial(trials, p),
        count=rng.poisson(mu),
        zeros=np.where(rng.uniform(size=N) < 0.25, 0, rng.poisson(2 * mu)),
        mass=np.where(rng.uniform(size=N) < 0.25, 0, rng.gamma(2, mu / 2)).round(4),
        grade=np.digitize(eta + rng.logistic(size=N), [-1, 0.5, 2]) + 1,
        choice=np.array(list("ABC"))[np.where(rng.uniform(size=N) < p, rng.integers(1, 3, N), 0)],
        low=np.maximum(y, -0.2),
        status=np.where(y <= -0.2, "left", "none"),
        sd=rng.uniform(0.2, 0.6, N).round(3),
    )


MEAN = "x + f + (1 | g)"
MODELS = {
    "linear": (f"y ~ {MEAN}", {"precision_weights": "w"}),
    "poisson": (f"count ~ {MEAN}", {"family": "poisson", "frequency_weights": "w"}),
    "pairs": (f"cbind(k, n - k) ~ {MEAN}", {"family": "binomial"}),
    "trials": (f"k / n ~ {MEAN}", {"family": "betabinomial", "trials": "n"}),
    "zero_inflated": (f"zeros ~ {MEAN}", {"family": "nbinom2", "zero_inflation": "~ x"}),
    "hurdle": (f"zeros ~ {MEAN}", {"family": "hurdle_poisson"}),
    "tweedie": ("mass ~ bs(x, df=4) + f + (1 | g)", {"family": "tweedie"}),
    "ordered": (f"grade ~ {MEAN}", {"family": "cumulative"}),
    "categories": (f"choice ~ {MEAN}", {"family": "multinomial"}),
    "censored": (f"cens(low, status) ~ {MEAN}", {}),
    "errors": (f"se(y, sd) ~ {MEAN}", {}),
}


def decimals(d):
    return d.assign(x=[Decimal(str(v)) for v in d["x"]], y=[Decimal(str(v)) for v in d["y"]])


def nullable(d):
    kinds = {"x": "Float64", "count": "Int64", "k": "Int16", "n": "Int64", "grade": "Int8", "w": "Float32"}
    return d.astype({**kinds, "g": "string", "f": "string", "status": "string", "choice": "string"})


def categories(d):
    return d.assign(
        g=pd.Categorical(d["g"], categories=[f"g{i:02d}" for i in range(GROUPS + 3)]),
        f=pd.Categorical(d["f"], categories=["hi", "none", "lo", "mid"]),
    )


def enums(d):
    levels = pl.Enum(["hi", "none", "lo", "mid"])
    return pl.from_pandas(d).with_columns(pl.col("f").cast(levels), pl.col("g").cast(pl.Categorical))


FORMS = {
    "polars": pl.from_pandas,
    "pyarrow": pa.Table.from_pandas,
    "dict": lambda d: {name: d[name].to_numpy() for name in d},
    "categories": categories,
    "enums": enums,
    "nullable": nullable,
    "arrow_types": lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
    "decimals": decimals,
    "objects": lambda d: d.astype(object),
    "small_numbers": lambda d: d.astype({"count": "uint8", "k": "int8", "n": "uint16", "zeros": "int16"}),
    "odd_index": lambda d: d.set_index(pd.Index(np.random.default_rng(1).permutation(len(d)) * 3)),
    "repeated_index": lambda d: d.set_index(pd.Index(np.zeros(len(d), int))),
    "lazy": lambda d: pl.from_pandas(d).lazy(),
}  # fmt: skip


@cache
def plain(model):
    formula, arguments = MODELS[model]
    return rf.fit(formula, data(), **arguments)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", MODELS)
def test_the_form_of_the_data_does_not_matter(model, form):
    formula, arguments = MODELS[model]
    expected = plain(model)
    m = rf.fit(formula, FORMS[form](data()), **arguments)
    assert_allclose(m.loglik, expected.loglik, rtol=1e-12)  # the same numbers go to the core
    kind = {"type": "probs"} if m.distribution.categorical else {}
    inside, new = (numbers(found) for found in (m.predict(**kind), m.predict(FORMS[form](data().iloc[ROWS]), **kind)))
    assert_allclose(new, inside[ROWS], rtol=1e-10)
    assert_allclose(inside, numbers(expected.predict(**kind)), rtol=1e-10)
    one = numbers(m.predict(FORMS[form](data().iloc[[5]]), **kind))
    assert_allclose(one, inside[[5]], rtol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_missing_values_of_every_form_are_missing(form):
    """In a number, a text and a group: those rows go, and new rows of that kind have no prediction."""
    holes = data().astype({"f": object, "g": object})
    holes.loc[3, "x"], holes.loc[[11, 12], "f"], holes.loc[40, "g"] = np.nan, None, None
    if form in ("decimals", "small_numbers"):
        holes = holes.assign(x=data()["x"])
    m = rf.fit(f"count ~ {MEAN}", FORMS[form](holes), family="poisson")
    gone = {"x": 1, "f": 2, "g": 1} if form not in ("decimals", "small_numbers") else {"f": 2, "g": 1}
    assert m.layout.dropped == gone
    assert m.nobs == N - sum(gone.values())
    new = m.predict(FORMS[form](holes.iloc[[0, 11]]))
    assert np.isnan(new).tolist() == [False, True]


def numbers(found):
    """Return predictions, one column or several, as an array."""
    if isinstance(found, np.ndarray):
        return found
    if isinstance(found, dict):
        return np.column_stack(list(found.values()))
    if isinstance(found, pa.Table):
        return np.column_stack([c.to_numpy() for c in found.columns])
    return found.to_numpy()
