"""Each picture shows the numbers it claims to show, is labelled, and can be drawn on given axes."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from numpy.testing import assert_allclose

import ranef as rf
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError, UnknownColumnError
from ranef.plot.modes import _order, within_group
from ranef.plot.residuals import _kept, _quartile_line
from ranef.plot.smooth import smooth


def ticks(ax):
    return [t.get_text() for t in ax.get_yticklabels()]


def drawn(ax):
    """All scatter points of an axes."""
    return np.vstack([np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)])


def labelled(ax):
    return bool(ax.get_xlabel()) and bool(ax.get_ylabel())


def save(ax):
    """Draw for real: layout problems raise warnings, and warnings are errors."""
    np.ravel(np.asarray(ax, dtype=object))[0].figure.canvas.draw()


# ---- caterpillar -----------------------------------------------------------------------------------------------------


def test_caterpillar_shows_the_modes_in_order(sleep):
    first, second = rf.plot.caterpillar(sleep)
    modes = sleep.estimate.modes[0]
    order = np.argsort(modes[:, 0])
    assert ticks(first) == [str(sleep.layout.terms[0].levels[i]) for i in order]
    for j, ax in enumerate((first, second)):
        points = drawn(ax)
        assert_allclose(points[np.argsort(points[:, 1]), 0], modes[order, j])
    assert labelled(first)
    assert "Days" in second.get_xlabel()
    save(first)


def test_caterpillar_intervals_are_conditional(sleep):
    ax = rf.plot.caterpillar(sleep, level=0.5)[0]
    half = 0.6744897501960817 * np.sqrt(sleep.core.cond_cov(0)[:, 0, 0])
    segments = np.vstack([s for c in ax.collections if hasattr(c, "get_segments") for s in c.get_segments()])
    assert_allclose(np.ptp(segments.reshape(-1, 2, 2)[:, :, 0], axis=1), 2 * half[0], rtol=1e-9)


def test_caterpillar_unsorted_has_the_first_level_on_top(sleep):
    assert ticks(rf.plot.caterpillar(sleep, sort=False)[0])[-1] == str(sleep.layout.terms[0].levels[0])


def test_caterpillar_draws_all_terms_or_one(crossed):
    assert len(rf.plot.caterpillar(crossed)) == 2
    one = rf.plot.caterpillar(crossed, term="sample")
    assert isinstance(one, Axes)
    assert one.get_ylabel() == "sample"


def test_many_levels_have_no_labels(exam):
    ax = rf.plot.caterpillar(exam)[0]
    assert len(ax.get_yticks()) < 15
    assert "rank of 65 levels" in ax.get_ylabel()


def test_max_levels_keeps_both_ends(exam):
    ax = rf.plot.caterpillar(exam, max_levels=9)[0]
    modes = exam.estimate.modes[0][:, 0]
    assert_allclose(np.sort(drawn(ax)[:, 0]), np.sort(modes)[[0, 1, 2, 3, -5, -4, -3, -2, -1]])
    assert "lowest 4 and highest 5 of 65" in ax.get_ylabel()


def test_order_of_levels():
    key = np.array([3.0, 1.0, 2.0, 0.0])
    assert _order(key, True, None).tolist() == [3, 1, 2, 0]
    assert _order(key, True, 2).tolist() == [3, 0]
    assert _order(key, False, 2).tolist() == [3, 0]


# ---- residuals -------------------------------------------------------------------------------------------------------


def test_residuals_against_fitted(sleep):
    ax = rf.plot.residuals_fitted(sleep)
    assert_allclose(drawn(ax), np.column_stack([sleep.fitted(), sleep.residuals("scaled")]))
    assert labelled(ax)
    assert any(len(line.get_xdata()) > 50 for line in ax.lines)
    assert rf.plot.residuals_fitted(sleep, type="response").get_ylabel() == "response residual"
    save(ax)


def test_many_points_become_hexagons(monkeypatch, sleep):
    monkeypatch.setattr("ranef.plot.residuals.MAX_POINTS", 100)
    ax = rf.plot.residuals_fitted(sleep)
    hexagons = next(c for c in ax.collections if isinstance(c, PolyCollection))
    assert hexagons.get_array().sum() == sleep.nobs


def test_constant_fitted_values_have_no_line():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.Dyestuff2())
    ax = rf.plot.residuals_fitted(m)
    assert ax.get_legend() is None
    save(ax)


def test_smooth_line_is_exact_on_lines_and_follows_curves():
    x = np.random.default_rng(1).uniform(0, 10, 2000)
    gx, gy = smooth(x, 3 - 2 * x)
    assert_allclose(gy, 3 - 2 * gx, atol=1e-9)
    gx, gy = smooth(x, np.sin(x / 2), span=0.2)
    assert np.abs(gy - np.sin(gx / 2)).max() < 0.1


def test_smooth_needs_three_places():
    assert not len(smooth(np.array([1.0, 1.0, 2.0]), np.zeros(3))[0])
    assert not len(smooth(np.ones(500), np.zeros(500))[0])


def test_qq_of_residuals(sleep):
    ax = rf.plot.qq(sleep)
    points = drawn(ax)
    assert_allclose(np.sort(points[:, 1]), np.sort(sleep.residuals("scaled")))
    assert labelled(ax)
    save(ax)


def test_qq_of_modes(sleep, crossed):
    assert len(rf.plot.qq(sleep, of="Subject")) == 2
    ax = rf.plot.qq(crossed, of="plate")
    assert_allclose(np.sort(drawn(ax)[:, 1]), np.sort(crossed.estimate.modes[0][:, 0]))


def test_qq_band_holds_normal_samples():
    """The share of points inside the pointwise band, over normal samples, is its level."""
    from ranef.plot.residuals import _quantiles

    rng, outside, total = np.random.default_rng(7), 0, 0
    _, ax = plt.subplots()
    for _ in range(30):
        ax.clear()
        _quantiles(ax, np.sort(rng.standard_normal(100)), 0.9)
        outside += sum(len(c.get_offsets()) for c in ax.collections if c.get_label() == "outside the band")
        total += 100
    assert 0.02 < outside / total < 0.15  # the line is estimated, and neighbours go together


def test_qq_thins_large_samples():
    kept = _kept(100_000)
    assert len(kept) <= 3_000
    assert {0, 1, 99_999} <= set(kept.tolist())
    assert _kept(50).tolist() == list(range(50))


def test_quartile_line_of_constant_values():
    assert _quartile_line(np.zeros(5)) == (0.0, 0.0)


# ---- shrinkage -------------------------------------------------------------------------------------------------------


def test_within_group_least_squares(sleep):
    data = rf.datasets.sleepstudy()
    found = within_group(sleep, 0) + sleep.estimate.beta
    for i, (_, rows) in enumerate(data.groupby("Subject", observed=True)):
        slope, intercept = np.polyfit(rows["Days"], rows["Reaction"], 1)
        assert_allclose(found[i], [intercept, slope])


def test_within_group_mean_removes_the_other_terms(crossed):
    found = within_group(crossed, 0)[:, 0]
    data = rf.datasets.Penicillin()
    rest = data["diameter"] - crossed.estimate.beta[0] - crossed.estimate.modes[1][data["sample"].cat.codes, 0]
    assert_allclose(found, rest.groupby(data["plate"], observed=True).mean())


def test_groups_that_cannot_stand_alone_are_counted():
    data = rf.datasets.sleepstudy().drop(index=range(1, 10))  # the first subject keeps one row
    m = rf.fit("Reaction ~ Days + (Days | Subject)", data)
    alone = within_group(m, 0)
    assert np.isnan(alone[0]).all()
    assert np.isfinite(alone[1:]).all()
    ax = rf.plot.shrinkage(m)
    assert "1 of 18 groups have too few rows" in ax.get_xlabel()
    save(ax)


def test_shrinkage_of_a_pair(sleep):
    ax = rf.plot.shrinkage(sleep)
    assert ax.get_xlabel() == "(Intercept)"
    assert ax.get_ylabel() == "Days"
    mixed = sleep.estimate.modes[0] + sleep.estimate.beta
    points = drawn(ax)
    assert all(np.isclose(points, row).all(axis=1).any() for row in mixed)
    assert {t.get_text() for t in ax.texts} == {str(v) for v in sleep.layout.terms[0].levels}
    save(ax)


def test_shrinkage_of_one_column(crossed):
    ax = rf.plot.shrinkage(crossed, term="plate")
    assert labelled(ax)
    assert len(ticks(ax)) == 24
    save(ax)


def test_shrinkage_of_three_columns_has_three_panels():
    m = rf.fit("score ~ Machine + (Machine | Worker)", rf.datasets.Machines())
    panels = rf.plot.shrinkage(m)
    assert len(panels) == 3
    save(panels)


def test_a_wild_group_does_not_squeeze_the_others(exam):
    ax = rf.plot.shrinkage(exam)
    low, high = ax.get_xlim()
    assert high - low < 3
    assert "1 of 65 groups, alone, lie outside the picture" in ax.get_xlabel()


# ---- trajectories ----------------------------------------------------------------------------------------------------


def test_trajectories(sleep):
    m = sleep
    panels = rf.plot.trajectories(m)
    assert len(panels) == 18
    assert [p.get_title() for p in panels] == [str(v) for v in m.layout.terms[0].levels]
    population = next(line for line in panels[3].lines if line.get_label() == "population")
    assert_allclose(population.get_ydata(), m.estimate.beta[0] + m.estimate.beta[1] * population.get_xdata())
    own = next(line for line in panels[3].lines if line.get_label() == "mixed model")
    b = m.estimate.beta + m.estimate.modes[0][3]
    assert_allclose(own.get_ydata(), b[0] + b[1] * own.get_xdata())
    save(panels)


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "dict"])
def test_trajectories_of_any_kind_of_data(kind, sleep):
    data = rf.datasets.sleepstudy("pandas" if kind == "dict" else kind)
    if kind == "dict":
        data = {name: data[name].to_numpy() for name in data.columns}
    m = rf.fit("Reaction ~ Days + (Days | Subject)", data)
    ours, theirs = (rf.plot.trajectories(fit, max_groups=2) for fit in (m, sleep))
    for a, b in zip(ours, theirs, strict=True):
        assert a.get_title() == b.get_title()
        for one, other in zip(a.lines, b.lines, strict=True):
            assert_allclose(one.get_xydata(), other.get_xydata())


def test_trajectories_with_dropped_rows_and_an_odd_index():
    data = rf.datasets.sleepstudy()
    data.index = np.arange(180)[::-1] // 2
    data.loc[data["Days"] == 3, "Reaction"] = np.nan
    m = rf.fit("Reaction ~ Days + (Days | Subject)", data)
    panels = rf.plot.trajectories(m)
    assert_allclose(drawn(panels[0]), data.loc[data["Subject"] == "308", ["Days", "Reaction"]].dropna())


def test_many_groups_are_sampled_evenly(exam):
    panels = rf.plot.trajectories(exam, max_groups=10)
    assert len(panels) == 10
    means = [drawn(p)[:, 1].mean() for p in panels]
    assert means == sorted(means)
    assert "10 of 65 levels of school" in panels[0].figure.legends[0].get_title().get_text()
    save(panels)


def test_trajectories_hold_other_variables_fixed():
    m = rf.fit("Weight ~ Time * Cu + (Time | Pig)", rf.datasets.dietox())
    assert len(rf.plot.trajectories(m, max_groups=4)) == 4


def test_trajectories_need_a_numeric_variable(crossed, sleep):
    with pytest.raises(DataError, match="no numeric variable"):
        rf.plot.trajectories(crossed)
    with pytest.raises(UnknownColumnError, match="did you mean 'Days'"):
        rf.plot.trajectories(sleep, x="Dais")


# ---- all of them -----------------------------------------------------------------------------------------------------

PICTURES = {
    "caterpillar": (lambda m, ax: rf.plot.caterpillar(m, ax=ax), 2),
    "residuals_fitted": (lambda m, ax: rf.plot.residuals_fitted(m, ax=ax), 1),
    "qq": (lambda m, ax: rf.plot.qq(m, ax=ax), 1),
    "shrinkage": (lambda m, ax: rf.plot.shrinkage(m, ax=ax), 1),
    "trajectories": (lambda m, ax: rf.plot.trajectories(m, ax=ax), 18),
}


@pytest.mark.parametrize("name", PICTURES)
def test_given_axes_are_used(sleep, name):
    draw, n = PICTURES[name]
    figure, grid = plt.subplots(1, n, squeeze=False)
    found = draw(sleep, grid if n > 1 else grid[0, 0])
    assert np.ravel(np.asarray(found, dtype=object)).tolist() == grid.ravel().tolist()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("name", PICTURES)
def test_wrong_number_of_axes(sleep, name):
    draw, n = PICTURES[name]
    _, grid = plt.subplots(1, n + 1)
    with pytest.raises(ArgumentError, match=f"this plot has {n} panel"):
        draw(sleep, grid)


@pytest.mark.parametrize("draw", [rf.plot.caterpillar, rf.plot.shrinkage, rf.plot.trajectories])
def test_models_without_random_effects(draw):
    with pytest.raises(DataError, match="no random effects"):
        draw(rf.fit("Reaction ~ Days", rf.datasets.sleepstudy()))


def test_unknown_terms_name_the_nearest(sleep):
    for draw in (rf.plot.caterpillar, rf.plot.shrinkage):
        with pytest.raises(OptionError, match="did you mean 'Subject'"):
            draw(sleep, term="subjct")
    with pytest.raises(OptionError, match="did you mean 'Subject'"):
        rf.plot.qq(sleep, of="Subjects")


def test_a_slim_fit_draws_its_modes_and_refuses_the_rest(sleep):
    slim = sleep.slim()
    assert len(rf.plot.caterpillar(slim)) == 2
    for draw in (rf.plot.residuals_fitted, rf.plot.shrinkage, rf.plot.trajectories):
        with pytest.raises(NotAvailableError, match="slim"):
            draw(slim)


def test_categories_without_order_are_drawn_by_their_modes_and_shares_only():
    rng = np.random.default_rng(1)
    d = {"x": rng.normal(size=60), "g": np.repeat(list("abcdef"), 10), "k": rng.choice(list("uvw"), 60)}
    d.update(zip("pqr", rng.multinomial(9, [0.2, 0.3, 0.5], 60).T, strict=True))
    one, counts = (rf.fit(f"{y} ~ x + (1 | g)", d, family="multinomial") for y in ("k", "cbind(p, q, r)"))
    for m in (one, counts):
        for draw in (rf.plot.shrinkage, rf.plot.trajectories):
            with pytest.raises(NotAvailableError, match="no one number a row"):
                draw(m)
    assert len(drawn(rf.plot.residuals_fitted(counts))) == 180
    save(rf.plot.qq(counts))


def test_boundary_fits_can_be_drawn():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.Dyestuff2())
    for ax in (rf.plot.caterpillar(m), rf.plot.shrinkage(m), rf.plot.qq(m, of="Batch"), rf.plot.qq(m)):
        save(ax)


def test_no_setting_of_matplotlib_is_changed(sleep):
    before = dict(plt.rcParams)
    rf.plot.trajectories(sleep, max_groups=2)
    assert dict(plt.rcParams) == before


def test_matplotlib_is_optional(monkeypatch, sleep):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotAvailableError, match="pip install matplotlib"):
        rf.plot.caterpillar(sleep)
