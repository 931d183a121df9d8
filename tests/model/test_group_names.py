"""Grouping factors by the names that other packages print."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import ranef as rf
from ranef.errors import OptionError, UnknownColumnError, UnknownParameterError
from ranef.formula.groups import group_named

OTHERS = ("mom:comm", "comm/mom", "comm:mom", "mom : comm")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    comm = np.repeat(np.arange(12), 20)
    mom, x = np.repeat(np.arange(60), 4) % 5, rng.normal(size=240)
    inner = rng.normal(size=(12, 5))[comm, mom]
    count = rng.poisson(np.exp(0.3 * x + 0.4 * rng.normal(size=12)[comm] + 0.4 * inner))
    return {"y": x + inner + rng.normal(size=240), "n": count * (rng.uniform(size=240) < 0.8), "x": x} | {
        "comm": comm, "mom": mom, "w": np.full(240, 2.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("b:a", ["a", "a:b"], "a:b"),
        ("a/b", ["a", "a:b"], "a:b"),
        ("c:b:a", ["a:b", "a:b:c"], "a:b:c"),
        ("b:a.1", ["a:b", "a:b.1"], "a:b.1"),
        ("a.1:b", ["b:a.1"], "b:a.1"),
        ("zero_inflation:b:a", ["a:b", "zero_inflation:a:b"], "zero_inflation:a:b"),
        ("b:a", ["a:b", "b:a"], "b:a"),
        ("a/b", ["a:b", "b:a"], None),  # which of the two nobody can tell
        ("c", ["a", "b"], None),
        (1, ["a"], None),
    ],
)
def test_the_name_meant(name, known, found):
    assert group_named(name, known) == found


@pytest.mark.parametrize("name", OTHERS)
def test_wherever_a_group_is_named(data, name):
    m = rf.fit("y ~ x + (1 | comm/mom)", data)
    spread = m.varcorr()
    assert spread[name] is spread["comm:mom"]
    for found in (m.ranef(), m.coef(), pickle.loads(pickle.dumps(m.ranef()))):
        assert name in found
        assert found[name] is found["comm:mom"] is found.get(name)
        assert sorted(found) == ["comm", "comm:mom"]
    np.testing.assert_array_equal(m.predict(re=[name]), m.predict(re=["comm:mom"]))
    inner = rf.fit("y ~ x + (1 | comm:mom)", data)
    np.testing.assert_array_equal(inner.vcov(kind="CR0", cluster=name), inner.vcov(kind="CR0", cluster="comm:mom"))
    rf.plot.caterpillar(m, term=name)


@pytest.mark.parametrize("name", OTHERS)
def test_parameters_of_a_group(data, name):
    m = rf.fit("n ~ x + (1 | comm/mom)", data, family="poisson", fixed={f"sd({name})": 0.3})
    assert m.varcorr()["comm:mom"].sd[0] == pytest.approx(0.3)
    tied = rf.fit("n ~ x + (1 | comm/mom)", data, family="poisson", equal=[(f"sd(1 | {name})", "sd(comm)")])
    assert tied.varcorr()["comm:mom"].sd[0] == pytest.approx(tied.varcorr()["comm"].sd[0])
    other = rf.fit(
        "n ~ x", data, family="poisson", zero_inflation="~ 1 + (1 | comm/mom)",
        fixed={f"sd(zero_inflation:{name})": 0.5, "sd(zero_inflation:comm)": 0.1},
    )  # fmt: skip
    assert other.varcorr()[f"zero_inflation:{name}"].sd[0] == pytest.approx(0.5)


LEVELS = [f"{c}:{k}" for c in range(12) for k in range(5)]
KINSHIP = np.kron(np.eye(12), np.full((5, 5), 0.45) + 0.55 * np.eye(5))


@pytest.mark.parametrize("name", OTHERS)
def test_relationships_and_weights_of_a_group(data, name):
    """A relationship under another name than ours was left out where the response is gaussian."""
    formula = "y ~ x + (1 | comm:mom)"
    for argument, matrix in (("cov", KINSHIP), ("precision", np.linalg.inv(KINSHIP))):
        named, ours = (rf.fit(formula, data, **{argument: {g: (matrix, LEVELS)}}) for g in (name, "comm:mom"))
        assert named.loglik == ours.loglik
        assert abs(named.loglik - rf.fit(formula, data).loglik) > 1
    weights = 1.0 + np.arange(240) // 4 % 3
    given = {"family": "poisson", "quadrature": 3}
    named, ours = (
        rf.fit("n ~ x + (1 | comm:mom)", data, sampling_weights={"row": data["w"], g: weights}, **given)
        for g in (name, "comm:mom")
    )
    assert named.loglik == ours.loglik


@pytest.mark.parametrize("name", OTHERS)
def test_permutations_within_a_group(data, name):
    m = rf.fit("y ~ x + (1 | comm:mom)", data)
    one, other = (rf.permutation_test(m, "x", within=g, n=19, seed=1) for g in (name, "comm:mom"))
    assert str(one) == str(other)


def test_unknown_names_get_a_hint(data):
    m = rf.fit("y ~ x + (1 | comm/mom)", data)
    with pytest.raises(UnknownColumnError, match="did you mean 'comm:mom'"):
        m.varcorr()["com:mom"]
    with pytest.raises(UnknownColumnError, match="did you mean 'comm'"):
        m.ranef()["com"]
    assert m.ranef().get("com") is None
    assert "com" not in m.ranef()
    with pytest.raises(OptionError, match="did you mean 'comm'"):
        m.predict(re=["com"])
    with pytest.raises(UnknownParameterError, match="comm:mom"):
        rf.fit("n ~ x + (1 | comm/mom)", data, family="poisson", fixed={"sd(mum:comm)": 1})
