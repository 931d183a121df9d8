# 11_lmm_postfit.R -- inference and post-fit quantities for linear mixed models
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages({library(lme4); library(lmerTest); library(pbkrtest); library(emmeans)})
emm_options(pbkrtest.limit = 10000, lmerTest.limit = 10000)
base <- function(title, data, formula, method, sections) c(list(title = title, kind = "postfit", data = data, formula = fm(formula), family = "gaussian", link = "identity", package = "lme4", version = pv("lme4"), method = method,
  packages = list(lme4 = pv("lme4"), lmerTest = pv("lmerTest"), pbkrtest = pv("pbkrtest"), emmeans = pv("emmeans"), car = pv("car"), performance = pv("performance"), insight = pv("insight"), RLRsim = pv("RLRsim"), cAIC4 = pv("cAIC4"), clubSandwich = pv("clubSandwich"), MuMIn = pv("MuMIn"), merDeriv = pv("merDeriv"))), sections)
## fits live in the global environment so that update(), anova(refit), profile() and influence() can re-evaluate the call
mk <- function(fun) function(formula, d, REML = TRUE, ...) {
  environment(formula) <- globalenv(); assign("d", d, globalenv())
  eval(as.call(c(list(fun, formula = formula, data = quote(d), REML = REML, control = quote(lc())), as.list(substitute(list(...)))[-1])), globalenv())
}
fitm <- mk(quote(lme4::lmer)); fitT <- mk(quote(lmerTest::lmer))
tr <- function(e, what = "") tryCatch(e, error = function(x) { note(what, ": ", conditionMessage(x)); NULL })
ci_json <- function(ci) trows(data.frame(lower = ci[, 1], upper = ci[, 2], row.names = rownames(ci)))
#' profile intervals: exact roots of the ML profile deviance, and lme4's own (spline-interpolated) ones
prof_ci <- function(m, level = .95) { ml <- if (isREML(m)) refitML(m) else m
  m0 <- eval(as.call(list(quote(lme4::lmer), formula(ml), data = quote(d), REML = FALSE)), globalenv())
  list(level = level, exact = tr(exact_profile(ml, level), "exact profile"), lme4 = tr(ci_json(confint(m0, level = level, oldNames = FALSE, quiet = TRUE)), "lme4 profile"), note = "exact: root of the profile deviance (ML), tolerance 1e-9, null when the bound is reached first; lme4: confint(method = \"profile\") with default control, interpolated, good to about 3-4 digits") }
df_tables <- function(mT) {
  s <- coef(summary(mT, ddf = "Satterthwaite")); k <- tr(coef(summary(mT, ddf = "Kenward-Roger")), "KR")
  o <- list(satterthwaite = trows(setNames(as.data.frame(s), c("estimate", "se", "df", "t", "p"))),
            kenward_roger = if (!is.null(k)) trows(setNames(as.data.frame(k), c("estimate", "se", "df", "t", "p"))))
  for (ty in c("I", "II", "III")) { a <- tr(as.data.frame(anova(mT, type = ty, ddf = "Satterthwaite")), paste("anova", ty)); if (!is.null(a)) o[[paste0("anova_type", ty, "_satterthwaite")]] <- trows(setNames(a, c("sumsq", "meansq", "numdf", "dendf", "F", "p")))
    a <- tr(as.data.frame(anova(mT, type = ty, ddf = "Kenward-Roger")), paste("anovaKR", ty)); if (!is.null(a)) o[[paste0("anova_type", ty, "_kenward_roger")]] <- trows(setNames(a, c("sumsq", "meansq", "numdf", "dendf", "F", "p"))) }
  V <- tr(pbkrtest::vcovAdj(mT), "vcovAdj"); if (!is.null(V)) o$vcov_adj_KR <- vcov_json(as.matrix(V))
  o
}
krmod <- function(big, small) { k <- pbkrtest::KRmodcomp(big, small); s <- pbkrtest::getKR(k, "Fstat"); list(stat_F = pbkrtest::getKR(k, "Fstat"), stat_F_unscaled = pbkrtest::getKR(k, "FstatU"), ndf = pbkrtest::getKR(k, "ndf"), ddf = pbkrtest::getKR(k, "ddf"), p = pbkrtest::getKR(k, "p.value"), p_unscaled = pbkrtest::getKR(k, "p.valueU"), F_scaling = pbkrtest::getKR(k, "F.scaling")) }
anova_rows <- function(a) trows(as.data.frame(a), "model")
emm_rows <- function(e) rows(as.data.frame(summary(e, infer = TRUE)))
cs_rows <- function(m, type, cluster = NULL) { ct <- if (is.null(cluster)) clubSandwich::coef_test(m, vcov = type) else clubSandwich::coef_test(m, vcov = type, cluster = cluster); d <- as.data.frame(ct); names(d) <- sub("^p_.*", "p", sub("^df_.*", "df", names(d))); rows(d) }
#@ post_cake_emmeans
golden("post_cake_emmeans", {
  d <- load_data("cake"); f <- angle ~ recipe * temperature + (1 | recipe:replicate); m <- fitm(f, d)
  e <- emmeans(m, ~recipe, lmer.df = "kenward-roger"); e2 <- emmeans(m, ~temperature | recipe, lmer.df = "kenward-roger"); es <- emmeans(m, ~recipe, lmer.df = "satterthwaite"); ea <- emmeans(m, ~recipe, lmer.df = "asymptotic")
  base("cake: estimated marginal means", "cake", f, "REML", list(recipe_kr = emm_rows(e), recipe_satterthwaite = emm_rows(es), recipe_asymptotic = emm_rows(ea), temperature_by_recipe_kr = emm_rows(e2), pairs_tukey_kr = emm_rows(pairs(e)), pairs_none = emm_rows(pairs(e, adjust = "none")), pairs_holm = emm_rows(pairs(e, adjust = "holm")), pairs_sidak = emm_rows(pairs(e, adjust = "sidak")), poly_temperature = emm_rows(contrast(emmeans(m, ~temperature, lmer.df = "kenward-roger"), "poly")), eff = emm_rows(contrast(e, "eff")), joint_tests = rows(as.data.frame(joint_tests(m, lmer.df = "kenward-roger")))))
})
#@ post_machines_tests
golden("post_machines_tests", {
  d <- load_data("Machines"); f <- score ~ Machine + (Machine | Worker); mT <- fitT(f, d); m <- fitm(f, d); e <- emmeans(m, ~Machine, lmer.df = "kenward-roger"); mn <- fitT(score ~ Machine + (1 | Worker) + (1 | Worker:Machine), d)
  base("Machines: df, emmeans, CR2", "Machines", f, "REML", c(list(logLik = as.numeric(logLik(m))), df_tables(mT), list(nested = df_tables(mn), nested_formula = fm(formula(mn)), emmeans = emm_rows(e), pairs = emm_rows(pairs(e)), trt_vs_ctrl = emm_rows(contrast(e, "trt.vs.ctrl")), CR2 = cs_rows(m, "CR2"), rePCA = vec(rePCA(m)$Worker$sdev), ranova = trows(as.data.frame(lmerTest::ranova(mn))))))
})
#@ post_oats_tests
golden("post_oats_tests", {
  d <- load_data("Oats"); d$nf <- factor(d$nitro); f <- yield ~ nf * Variety + (1 | Block/Variety); mT <- fitT(f, d); m <- fitm(f, d); e <- emmeans(m, ~nf, lmer.df = "kenward-roger"); ev <- emmeans(m, ~Variety, lmer.df = "kenward-roger")
  base("Oats: split-plot tests (nf = factor(nitro))", "Oats", f, "REML", c(list(logLik = as.numeric(logLik(m))), df_tables(mT), list(emm_nitro = emm_rows(e), emm_variety = emm_rows(ev), pairs_variety = emm_rows(pairs(ev)), contrast_poly = emm_rows(contrast(e, "poly")), consec = emm_rows(contrast(e, "consec")), ranova = trows(as.data.frame(lmerTest::ranova(mT))), VarCorr_profile = prof_ci(fitm(f, d, FALSE)))))
})
#@ post_orthodont_tests
golden("post_orthodont_tests", {
  d <- load_data("Orthodont"); f <- distance ~ age * Sex + (1 | Subject); mT <- fitT(f, d); m <- fitm(f, d); mi <- fitT(distance ~ age * Sex + (age | Subject), d)
  lmeDF <- function(random) { a <- anova(nlme::lme(distance ~ age, random, data = d)); obj(setNames(as.list(a[, "denDF"]), rownames(a))) }
  tnd <- emtrends(m, ~Sex, var = "age", lmer.df = "kenward-roger")
  base("Orthodont: df, trends, inner-outer denominator df", "Orthodont", f, "REML", c(df_tables(mT), list(random_slope = df_tables(mi), random_slope_formula = fm(formula(mi)), emtrends = emm_rows(tnd), emtrends_pairs = emm_rows(pairs(tnd)),
    inner_outer = list(source = "GLMM FAQ: nlme::lme anova denDF and calcDenDF() for distance ~ age in Orthodont", lme_intercept = lmeDF(~1 | Subject), lme_slope = lmeDF(~age | Subject), faq_calcDenDF_intercept = list(`(Intercept)` = 80, age = 80), faq_calcDenDF_slope = list(`(Intercept)` = 81, age = 25)))))
})
#@ post_penicillin_intervals
golden("post_penicillin_intervals", {
  d <- load_data("Penicillin"); f <- diameter ~ 1 + (1 | plate) + (1 | sample); m <- fitm(f, d); ml <- fitm(f, d, FALSE); mT <- fitT(f, d)
  base("Penicillin: profile intervals, ranova, variances", "Penicillin", f, "REML and ML", c(list(profile_ml = prof_ci(ml), wald = ci_json(confint(m, method = "Wald")), ranova = trows(as.data.frame(lmerTest::ranova(mT))), cAIC = { x <- cAIC4::cAIC(m); list(conditional_loglik = x$loglikelihood, df = x$df, caic = x$caic) }, icc = rows(as.data.frame(performance::icc(m, by_group = TRUE)))), df_tables(mT)))
})
#@ post_dyestuff2_singular
golden("post_dyestuff2_singular", {
  d <- load_data("Dyestuff2"); f <- Yield ~ 1 + (1 | Batch); m <- fitm(f, d); mT <- fitT(f, d); lmm <- lm(Yield ~ 1, d)
  base("Dyestuff2: singular fit, post-fit", "Dyestuff2", f, "REML", c(list(isSingular = isSingular(m), wald = ci_json(confint(m, method = "Wald")), ranef = vec(unlist(ranef(m)$Batch)), lm_logLik_REML = as.numeric(logLik(lmm, REML = TRUE)), r2 = tr({ x <- suppressWarnings(MuMIn::r.squaredGLMM(m)); vec(x) }, "r2")), df_tables(mT)))
})
#@ post_exam_r2
golden("post_exam_r2", {
  d <- load_data("Exam"); f <- normexam ~ standLRT + sex + schgend + (standLRT | school); m <- fitm(f, d); r2 <- performance::r2_nakagawa(m); ic <- performance::icc(m); mT <- fitT(f, d)
  s <- coef(summary(mT))
  base("Exam: R2, ICC, Satterthwaite, CR2 with 65 clusters", "Exam", f, "REML", list(r2_marginal = unname(r2$R2_marginal), r2_conditional = unname(r2$R2_conditional), icc_adjusted = ic$ICC_adjusted, icc_unadjusted = ic$ICC_unadjusted, mumin_r2 = { x <- MuMIn::r.squaredGLMM(m); list(marginal = x[1, 1], conditional = x[1, 2]) }, satterthwaite = trows(setNames(as.data.frame(s), c("estimate", "se", "df", "t", "p"))), CR2 = cs_rows(m, "CR2"), CR0 = cs_rows(m, "CR0"),
    r2glmm_sgv = tr(rows(as.data.frame(r2glmm::r2beta(m, method = "sgv", partial = TRUE))), "r2beta sgv"), r2glmm_nsj = tr(rows(as.data.frame(r2glmm::r2beta(m, method = "nsj", partial = TRUE))), "r2beta nsj"), r2glmm_kr = NULL))
})
#@ post_pbib_kr
golden("post_pbib_kr", {
  d <- load_data("PBIB"); f <- response ~ Treatment + (1 | Block); mT <- fitT(f, d); m <- fitm(f, d); m0 <- fitm(response ~ 1 + (1 | Block), d)
  base("PBIB: Kenward-Roger where F scaling matters", "PBIB", f, "REML", c(list(logLik = as.numeric(logLik(m))), df_tables(mT), list(KRmodcomp = krmod(m, m0))))
})
#@ post_predict_crossed
golden("post_predict_crossed", {
  d <- load_data("sim_crossed"); f <- y ~ x1 + f + offset(off) + (1 | a) + (1 | b); m <- fitm(f, d); nd <- data.frame(x1 = c(0, 1, -1, .5), f = factor(c("lo", "mid", "hi", "hi"), levels = c("lo", "mid", "hi")), off = c(0, 1, .5, 2), a = c("A01", "A02", "ZZ", "A05"), b = c("B01", "ZZ", "ZZ", "B18"))
  base("sim_crossed: predictions with offset, new levels in some factors", "sim_crossed", f, "REML", list(newdata = rows(nd), re_form_NA = vec(predict(m, nd, re.form = NA)), re_form_NULL = vec(predict(m, nd, allow.new.levels = TRUE)), re_form_a = vec(predict(m, nd, re.form = ~(1 | a), allow.new.levels = TRUE)), na_row = { n2 <- nd; n2$x1[1] <- NA; vec(predict(m, n2, re.form = NA)) }))
})
#@ post_sleepstudy_diagnostics
golden("post_sleepstudy_diagnostics", {
  d <- load_data("sleepstudy"); f <- Reaction ~ Days + (Days | Subject); m <- fitm(f, d); inf <- influence(m, groups = "Subject"); io <- influence(m)
  rp <- rePCA(m); r2 <- performance::r2_nakagawa(m); ic <- performance::icc(m); ca <- cAIC4::cAIC(m); ml <- fitm(f, d, FALSE)
  lt <- HLMdiag::leverage(m, level = 1); 
  base("sleepstudy: diagnostics", "sleepstudy", f, "REML", list(hatvalues = vec(hatvalues(m)), sum_hatvalues = sum(hatvalues(m)), hlmdiag_leverage = rows(head(as.data.frame(lt), 20)),
    cooks_subject = trows(data.frame(cooks = cooks.distance(inf)), "Subject"), dfbeta_subject = trows(as.data.frame(dfbeta(inf)), "Subject"), dfbetas_subject = trows(as.data.frame(dfbetas(inf)), "Subject"), cooks_obs = vec(cooks.distance(io)[1:20]), rstudent = NULL, scaled_resid = hd(residuals(m, scaled = TRUE), 20),
    rePCA = list(sdev = vec(rp$Subject$sdev), rotation = mat(rp$Subject$rotation)), isSingular = isSingular(m), r2_marginal = unname(r2$R2_marginal), r2_conditional = unname(r2$R2_conditional), mumin_r2 = { x <- MuMIn::r.squaredGLMM(m); list(marginal = x[1, 1], conditional = x[1, 2]) }, icc_adjusted = ic$ICC_adjusted, icc_unadjusted = ic$ICC_unadjusted,
    cAIC = list(conditional_loglik = ca$loglikelihood, df = ca$df, caic = ca$caic), cAIC_ml = { c2 <- cAIC4::cAIC(ml); list(conditional_loglik = c2$loglikelihood, df = c2$df, caic = c2$caic) }))
})
#@ post_dyestuff_profile
golden("post_dyestuff_profile", {
  d <- load_data("Dyestuff"); f <- Yield ~ 1 + (1 | Batch); m <- fitm(f, d, FALSE); mr <- fitm(f, d); set.seed(101); e <- RLRsim::exactRLRT(mr, nsim = 10000)
  p <- profile(lme4::lmer(Yield ~ 1 + (1 | Batch), d, REML = FALSE), signames = FALSE); pd <- as.data.frame(p); pd <- pd[order(pd$.par, pd$.focal), c(".par", ".zeta", ".focal")]
  base("Dyestuff: profile zeta values and intervals", "Dyestuff", f, "ML", list(profile_ml = prof_ci(m), profile_99 = prof_ci(m, .99), zeta = rows(pd), exactRLRT = list(statistic = unname(e$statistic), p = e$p.value, nsim = 10000, seed = 101), simulate_note = "zeta: signed square root of the deviance difference at .focal"))
})
#@ post_sleepstudy_intervals
golden("post_sleepstudy_intervals", {
  d <- load_data("sleepstudy"); f <- Reaction ~ Days + (Days | Subject); m <- fitm(f, d); ml <- fitm(f, d, FALSE)
  base("sleepstudy: confidence intervals", "sleepstudy", f, "REML and ML", list(logLik = as.numeric(logLik(m)),
    wald_reml = ci_json(confint(m, method = "Wald")), profile_ml = prof_ci(ml), profile_ml_90 = prof_ci(ml, .9),
    profile_note = "lme4 profiles the ML deviance also for a REML fit"))
})
#@ post_sleepstudy_vcov_theta
golden("post_sleepstudy_vcov_theta", {
  d <- load_data("sleepstudy"); f <- Reaction ~ Days + (Days | Subject); ml <- fitm(f, d, FALSE); m <- fitm(f, d)
  V <- merDeriv::vcov.lmerMod(ml, full = TRUE); Ve <- merDeriv::vcov.lmerMod(ml, full = TRUE, information = "expected"); Vr <- tr(merDeriv::vcov.lmerMod(m, full = TRUE), "reml"); sc <- merDeriv::estfun.lmerMod(ml, level = 2)
  base("sleepstudy: full covariance of all parameters (merDeriv)", "sleepstudy", f, "ML", list(vcov_full_observed = vcov_json(V), vcov_full_expected = vcov_json(Ve), vcov_full_reml = if (!is.null(Vr)) vcov_json(Vr), note = "variance parameters are variances and covariances of Subject, then the residual variance", estfun_subject = trows(as.data.frame(sc), "Subject")))
})
#@ post_sleepstudy_boot
golden("post_sleepstudy_boot", {
  d <- load_data("sleepstudy"); f <- Reaction ~ Days + (Days | Subject); m <- lme4::lmer(f, d, REML = FALSE)
  st <- function(x) c(fixef(x), sigma = sigma(x), th = getME(x, "theta")); set.seed(101); b <- bootMer(m, st, nsim = 500, seed = 101); q <- apply(b$t, 2, quantile, c(.025, .975), na.rm = TRUE)
  base("sleepstudy: parametric bootstrap (loose comparison only)", "sleepstudy", f, "ML", list(nsim = 500, seed = 101, loose = TRUE, t0 = obj(as.list(b$t0)), mean = obj(as.list(colMeans(b$t))), sd = obj(as.list(apply(b$t, 2, sd))), percentile_lower = obj(as.list(q[1, ])), percentile_upper = obj(as.list(q[2, ]))))
})
