"""Permutation tests: exact enumeration against brute force, size and power by simulation, schemes, clusters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import ranef as rf
from ranef.errors import DataError, NotAvailableError, OptionError
from ranef.frame.design import matrix
from ranef.inference.permutation import Rearrangement, columns_of, placement
from ranef.inference.permutation_clusters import largest, runs


def paired(groups: int, per: int, effect: float, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), per)
    x = np.tile(np.arange(per) % 2, groups).astype(float)
    y = effect * x + rng.standard_normal(groups)[g] + rng.standard_normal(groups * per)
    return {"y": y, "x": x, "g": g}


def test_exact_enumeration_is_that_of_hand():
    data = paired(5, 2, 1.0, 1)
    m = rf.fit("y ~ x + (1 | g)", data)
    found = rf.permutation_test(m, "x", n=999)
    assert found.exact
    assert len(found.null) == 2**5
    # Pairs: t is a monotone function of the mean difference, and swapping a pair changes the sign of its difference.
    d = data["y"][1::2] - data["y"][::2]
    null = [abs(np.mean(d * s)) for s in itertools.product((1, -1), repeat=5)]
    expected = np.mean([v >= abs(d.mean()) - 1e-12 for v in null])
    assert found.p_value == pytest.approx(expected)
    assert found.observed == pytest.approx(found.null[0], rel=1e-6)


def test_between_groups_is_the_permutation_test_of_means():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(6), 4)
    z = np.array([0.0, 0, 0, 1, 1, 1])[g]
    y = 1.5 * z + rng.standard_normal(6)[g] + rng.standard_normal(24)
    found = rf.permutation_test(rf.fit("y ~ z + (1 | g)", {"y": y, "z": z, "g": g}), "z", n=1000)
    assert found.exact
    assert "whole levels of g" in found.scheme
    means = np.array([y[g == k].mean() for k in range(6)])
    null = [abs(means[list(o)][:3].mean() - means[list(o)][3:].mean()) for o in itertools.permutations(range(6))]
    assert found.p_value == pytest.approx(np.mean([v >= null[0] - 1e-12 for v in null]))


def test_size_under_the_null_and_power():
    # 120 tests at 5 %: at most 12 rejections in 98 % of all seeds; an effect of 2 is always found.
    rejected = sum(
        rf.permutation_test(rf.fit("y ~ x + (1 | g)", paired(6, 4, 0.0, seed)), "x", n=39, seed=seed).p_value <= 0.05
        for seed in range(120)
    )
    assert rejected <= 12
    assert rf.permutation_test(rf.fit("y ~ x + (1 | g)", paired(8, 4, 2.0, 1)), "x", n=199, seed=1).p_value <= 0.01


def test_units_follow_the_design():
    oats = rf.fit("yield ~ Variety * nitro + (1 | Block / Variety)", rf.datasets.load("Oats"))
    x = matrix(oats.design.fixed, oats.design.n)

    def place(term):
        return placement(oats.design, x[:, columns_of(oats, term)], None)

    assert (place("Variety").unit, place("Variety").label) == ("Block:Variety", "Block")
    assert (place("nitro").units, place("nitro").label) == (None, "Block:Variety")
    assert place("Variety:nitro").label == "Block:Variety"
    sleep = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    assert "random sign" in rf.permutation_test(sleep, "Days", n=19, seed=1).scheme


def test_rearrangements_stay_in_their_groups():
    codes = np.array([0, 1, 0, 1, 2, 2, 2])
    order, sign = Rearrangement(codes, "within").draw(np.random.default_rng(1))
    np.testing.assert_array_equal(codes[order], codes)
    assert sorted(order) == list(range(7))
    assert len({tuple(o) for o, _ in Rearrangement(codes, "within").all()}) == 2 * 2 * 6
    units = np.array([0, 0, 1, 1, 2, 2])
    moved = {tuple(o) for o, _ in Rearrangement(np.zeros(6, int), "between", units).all()}
    assert len(moved) == 6
    assert all(np.array_equal(np.diff(o)[::2], [1, 1, 1]) for o in moved)
    assert [tuple(s) for _, s in Rearrangement(np.array([0, 0, 1]), "flip").all()][1] == (1, 1, -1)
    np.testing.assert_array_equal(sign, 1)


def test_a_random_effect():
    found = rf.permutation_test(rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff")), "Batch", n=499, seed=1)
    # RLRsim's exact restricted likelihood ratio test: 6.369, p = 0.0036.
    assert found.observed == pytest.approx(6.36896535, rel=1e-5)
    assert found.p_value < 0.02
    zero = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    assert rf.permutation_test(zero, "(1 | Batch)", n=99, seed=1).p_value == 1


def test_one_of_two_random_terms():
    m = rf.fit("Reaction ~ Days + (Days || Subject)", rf.datasets.load("sleepstudy"))
    slope = next(k for k in m.varcorr() if m.varcorr()[k].names == ("Days",)) if len(m.varcorr()) > 1 else "Subject"
    assert rf.permutation_test(m, slope, n=99, seed=1, within="Subject").p_value <= 0.05


def test_generalised_models_permute_the_covariate():
    m = rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", rf.datasets.load("cbpp"), family="binomial")
    found = rf.permutation_test(m, "period", n=39, seed=1)
    assert (found.statistic, found.p_value) == ("F", pytest.approx(1 / 40))
    assert "values of period" in found.scheme
    with pytest.raises(NotAvailableError, match="bootstrap"):
        rf.permutation_test(m, "herd")


def test_seeds_and_weights():
    data = paired(8, 4, 0.5, 3)
    m = rf.fit("y ~ x + (1 | g)", data | {"w": np.linspace(1, 2, 32)}, precision_weights="w")
    one, two = (rf.permutation_test(m, "x", n=49, seed=9) for _ in range(2))
    np.testing.assert_array_equal(one.null, two.null)
    assert "seed 9" in repr(one)
    assert rf.permutation_test(m, "x", n=19, seed=1, within=data["g"]).p_value <= 1


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"term": "z"}, OptionError, "known|did you mean"),
        ({"term": "x", "n": 0}, OptionError, "positive"),
        ({"term": "x", "scheme": "all"}, OptionError, "flip"),
        ({"term": "x", "scheme": "between"}, OptionError, "varies"),
        ({"term": "x", "within": "h"}, OptionError, "grouping factor"),
        ({"term": "x", "within": np.zeros(3)}, DataError, "rows"),
    ],
)
def test_bad_input(options, error, text):
    m = rf.fit("y ~ x + (1 | g)", paired(6, 4, 0.0, 1))
    with pytest.raises(error, match=text):
        rf.permutation_test(m, **options)


# ---- clusters --------------------------------------------------------------------------------------------------------


def series(effect: float, seed: int, groups: int = 10, length: int = 40):
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(groups), 2), np.tile([0.0, 1.0], groups)
    noise = np.cumsum(rng.standard_normal((2 * groups, length)), axis=1) * 0.3 + rng.standard_normal(
        (2 * groups, length)
    )
    noise += rng.standard_normal((groups, length))[g]
    noise[:, 15:25] += effect * x[:, None]
    return {"x": x, "g": g}, noise


def test_a_true_cluster_is_found():
    data, Y = series(3.0, 1)
    found = rf.cluster_permutation_test("~ x + (1 | g)", data, Y, "x", n=99, seed=1)
    best = int(found.mass.argmax())
    assert found.p_value[best] <= 0.02
    first, last = found.clusters[best]
    assert first <= 18
    assert last >= 22
    direct = rf.fit("y ~ x + (1 | g)", {**data, "y": Y[:, 20]}).tidy().iloc[1]["statistic"]
    assert found.statistic[20] == pytest.approx(direct, rel=1e-6)
    assert list(found.table().columns) == ["cluster", "start", "end", "points", "mass", "sign", "p_value"]
    assert (found.frame()["cluster"] >= 0).sum() == found.table()["points"].sum()
    assert "permutations, seed 1" in repr(found)


def test_null_series_reject_rarely():
    # 40 tests at 5 %: more than 6 rejections have a probability of 1 %.
    smallest = [
        rf.cluster_permutation_test("~ x + (1 | g)", *series(0.0, s, 6, 12), "x", n=19, seed=s).p_value
        for s in range(40)
    ]
    assert sum(p.min(initial=1.0) <= 0.05 for p in smallest) <= 6


def test_runs_end_where_the_sign_changes():
    t = np.array([0.0, 3, 4, -3, -2.5, np.nan, 5, 0])
    assert runs(t, 2.0) == ((1, 2), (3, 4), (6, 6))
    assert largest(t, 2.0) == 7
    assert runs(np.zeros(3), 2.0) == ()


def test_cluster_input():
    data, Y = series(0.0, 1, 4, 6)
    with pytest.raises(OptionError, match=r"did you mean|known"):
        rf.cluster_permutation_test("~ x + (1 | g)", data, Y, "z")
    with pytest.raises(DataError, match="times"):
        rf.cluster_permutation_test("~ x + (1 | g)", data, Y, "x", times=[1, 2])
    with pytest.raises(NotAvailableError, match="linear"):
        rf.cluster_permutation_test("~ x + (1 | g)", data, Y, "x", family="poisson")


def test_terms_that_are_aliased_are_not_tested():
    rng = np.random.default_rng(3)
    data = paired(8, 6, 1.0, 3)
    data |= {"twice": 2 * data["x"] + 1e6, "z": rng.standard_normal(48)}
    m = rf.fit("y ~ x + z + twice + (1 | g)", data)
    with pytest.raises(DataError, match="'twice' depends linearly on it"):
        rf.permutation_test(m, "x", n=19, seed=1)
    assert rf.permutation_test(m, "z", n=99, seed=1).p_value > 0.01  # what is dropped beside it does not matter


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_columns_that_were_dropped_stay_out_of_every_draw(family):
    """An interaction with an empty cell: all draws test as many coefficients as the observed statistic does."""
    rng = np.random.default_rng(4)
    f, h, g = rng.integers(0, 3, 90), rng.integers(0, 2, 90), np.repeat(np.arange(9), 10)
    h[f == 2] = 0
    eta = 0.3 * rng.standard_normal(9)[g]
    y = rng.poisson(np.exp(eta)) if family == "poisson" else eta + rng.standard_normal(90)
    data = {"y": y, "f": [f"f{v}" for v in f], "h": [f"h{v}" for v in h], "g": g}
    m = rf.fit("y ~ f * h + (1 | g)", data, family=family)
    found = rf.permutation_test(m, "f:h", n=39, seed=1, scheme="covariate")
    assert (found.statistic, found.failures) == ("|t|", 0)
    t = np.asarray(m.tidy()["statistic"], dtype=float)
    assert np.isnan(t[-1])
    assert found.observed == pytest.approx(abs(t[-2]), rel=1e-9)


def test_labels_are_read_with_and_without_spaces():
    sleep = rf.datasets.load("sleepstudy")
    m = rf.fit("Reaction ~ poly(Days,2) + (1 | Subject)", sleep)
    spellings = ("poly(Days, 2)", "poly(Days,2)")
    assert {rf.permutation_test(m, t, n=19, seed=1).p_value for t in spellings} == {0.05}
    m = rf.fit("Reaction ~ `the day` + (1 | Subject)", sleep.rename(columns={"Days": "the day"}))
    assert rf.permutation_test(m, "the day", n=19, seed=1).p_value == 0.05
