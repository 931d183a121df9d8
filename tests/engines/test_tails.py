"""Directions without an optimum, along which a search would take a step of one unit after the other."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf

pytestmark = pytest.mark.filterwarnings("ignore::ranef.errors.SeparationWarning")  # which is so


def inflated(seed: int) -> pd.DataFrame:
    """Counts of four kinds, of which two have no extra zeros: their coefficients go to minus infinity."""
    rng = np.random.default_rng([seed, 14])
    n = 600
    kind, site = rng.integers(0, 4, n), rng.integers(0, 20, n)
    counts = rng.poisson(np.exp(0.8 + 0.3 * kind + rng.normal(0, 0.3, 20)[site]))
    zero = rng.random(n) < np.array([0.5, 0.0, 0.3, 0.0])[kind]
    return pd.DataFrame({"count": np.where(zero, 0, counts), "kind": pd.Categorical(kind), "site": site})


def separated(seed: int) -> pd.DataFrame:
    """Outcomes that a line divides."""
    rng = np.random.default_rng([seed, 15])
    x, z = rng.normal(size=(2, 60))
    return pd.DataFrame({"y": (x + 0.3 * z > 0.2).astype(int), "x": x, "z": z, "g": rng.integers(0, 8, 60)})


@pytest.mark.parametrize("seed", range(5))
def test_levels_without_extra_zeros_end_in_a_step(seed):
    """From a promise of 1e-2 to one of 1e-9 are 16 units and more, and all of them one step.

    Of seed 2 one coefficient seems to go as far, and has its optimum at -8.5: steps beyond it are taken back, thrice.
    """
    given = {"family": "poisson", "zero_inflation": "~ kind"}
    m = rf.fit("count ~ kind + (1 | site)", inflated(seed), **given)
    closer = rf.fit("count ~ kind + (1 | site)", inflated(seed), **given, control={"tolerance": 1e-12})
    assert m.converged
    assert m.certificate.evaluations <= (24 if seed == 2 else 12)
    assert m.loglik == pytest.approx(closer.loglik, abs=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_the_way_to_the_end_does_not_hang_on_the_order_of_levels(seed):
    """Some coefficients have no bound, others look alike for a while: steps too far are taken back, later ones are not.

    Of fourteen orders six took about 30 evaluations where none was tried after the first that went too far;
    now 8 to 13.
    """
    rng, data = np.random.default_rng(seed), rf.datasets.load("Salamanders")
    levels = rng.permutation(list(data["spp"].cat.categories))
    data = data.assign(
        spp=pd.Categorical(data["spp"].astype(str), categories=levels),
        mined=pd.Categorical(data["mined"].astype(str), categories=["no", "yes"][:: 1 - 2 * (seed % 2)]),
    )
    m = rf.fit("count ~ spp * mined + (1 | site)", data, family="nbinom2", zero_inflation="~ spp * mined")
    assert m.converged
    assert m.loglik == pytest.approx(-804.838282, abs=1e-6)  # glmmTMB's, to the digits of benchmarks/RESULTS.md
    assert m.certificate.evaluations <= 20


@pytest.mark.parametrize("seed", range(5))
def test_separated_outcomes_take_longer_and_longer_steps(seed):
    m = rf.fit("y ~ x + z + (1 | g)", separated(seed), family="binomial")
    assert m.converged
    assert m.loglik == pytest.approx(0.0, abs=1e-6)
    assert m.certificate.evaluations <= 18


def nearly_touching(seed: int, gap: float) -> pd.DataFrame:
    """Outcomes that a point divides, with two rows next to it."""
    rng = np.random.default_rng([seed, 16])
    x = rng.normal(size=60)
    x = np.append(x[np.abs(x - 0.2) > gap], 0.2 + 0.5 * np.array([-gap, gap]))
    return pd.DataFrame({"y": (x > 0.2).astype(int), "x": x, "g": np.arange(len(x)) % 8})


@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4])
def test_what_is_not_known_shortens_no_steps_of_separated_outcomes(gap):
    """Single trials say nothing about a dispersion: with the little that is known of the slope raised as well, steps of
    which one is enough took 200 evaluations and more.
    """
    m = rf.fit("y ~ x + (1 | g)", nearly_touching(1, gap), family="betabinomial")
    assert m.converged
    assert m.loglik == pytest.approx(0.0, abs=1e-6)
    assert m.certificate.evaluations <= 30
