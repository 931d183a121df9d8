"""Pictures of profiles show the numbers of the profile."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose

import ranef as rf
from ranef.errors import OptionError, UnknownColumnError
from ranef.plot.profile import contour, trace


@pytest.fixture(scope="module")
def profiled(sleep):
    return rf.profile(sleep, points=12)


def save(panels):
    """Draw for real: layout problems raise warnings, and warnings are errors."""
    np.ravel(np.asarray(panels, dtype=object))[0].figure.canvas.draw()


def test_signed_roots_pass_through_the_interval_ends(profiled):
    panels = rf.plot.profile(profiled, levels=(0.95,))
    save(panels)
    assert len(panels) == 6
    for panel, curve in zip(panels, profiled.curves, strict=True):
        (bars,) = panel.collections
        ends = [segment[1] for segment in bars.get_segments()]
        assert_allclose([x for x, _ in ends], curve.interval(0.95), rtol=1e-6)
        # Heights are read off the drawn line: 241 points of a smooth curve.
        assert_allclose([y for _, y in ends], [-1.959964, 1.959964], atol=1e-3)
        assert panel.get_xlabel()


def test_absolute_roots_are_not_negative(profiled):
    panel = rf.plot.profile(profiled, "sigma", absolute=True)
    save(panel)
    assert all((np.asarray(line.get_ydata()) >= 0).all() for line in panel.lines)


def test_densities_integrate_to_the_level_they_cover(profiled):
    panels = rf.plot.profile_density(profiled)
    save(panels)
    for panel, curve in zip(panels, profiled.curves, strict=True):
        x, y = panel.lines[0].get_data()
        from scipy.stats import norm

        # The trapezoidal rule and a difference quotient, on 241 points.
        covered = norm.cdf(curve.zeta[-1]) - norm.cdf(curve.zeta[0])
        assert np.trapezoid(y, x) == pytest.approx(covered, abs=2e-3)


def test_contours_touch_their_radius_on_the_traces(profiled):
    x, y = profiled["(Intercept)"], profiled["sd((Intercept) | Subject)"]
    cx, cy = contour(x, y, 2.0)
    assert np.nanmax(cx) == pytest.approx(2, abs=2e-3)  # 181 points around
    at = int(np.nanargmax(cx))
    assert cy[at] == pytest.approx(np.interp(2.0, x.zeta, trace(x, y)), abs=0.1)


def test_contours_of_a_quadratic_are_ellipses():
    # Fixed effects of a large balanced design: traces are straight, contours ellipses with their correlation.
    rng = np.random.default_rng(1)
    x = rng.standard_normal(4000) + 1
    m = rf.fit("y ~ x", {"x": x, "y": rng.standard_normal(4000)}, method="ml")
    p = rf.profile(m)
    a, b = p.curves[:2]
    r = np.asarray(m.vcov())
    r = r[0, 1] / np.sqrt(r[0, 0] * r[1, 1])
    cx, cy = contour(a, b, 1.5)
    # The phase of an ellipse is constant: the spline through four equal values is exact, traces are interpolated.
    assert_allclose((cx**2 - 2 * r * cx * cy + cy**2) / (1 - r**2), 2.25, rtol=5e-3)


def test_pairs(profiled, sleep):
    panels = rf.plot.profile_pairs(profiled, ["Days", "sd(Days | Subject)", "sigma"])
    save(panels)
    assert panels.shape == (3, 3)
    assert panels[0, 0].texts[0].get_text() == "Days"
    low = panels[2, 0]
    assert_allclose(low.lines[-1].get_xydata()[0], [profiled["Days"].estimate, profiled["sigma"].estimate])
    figure, own = plt.subplots(2, 2)
    assert rf.plot.profile_pairs(sleep, ["Days", "sigma"], ax=own)[1, 1].figure is figure


def test_a_bound_opens_the_contour():
    p = rf.profile(rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff")))
    save(rf.plot.profile_pairs(p))
    cx, _ = contour(p["sd((Intercept) | Batch)"], p["sigma"], 3.0)
    assert np.isnan(cx).any()


def test_bad_input(profiled):
    with pytest.raises(OptionError, match="two parameters"):
        rf.plot.profile_pairs(profiled, "sigma")
    with pytest.raises(UnknownColumnError, match="sigma"):
        rf.plot.profile(profiled, "sigmaa")
