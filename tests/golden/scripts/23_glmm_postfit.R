# 23_glmm_postfit.R -- inference and post-fit quantities for glmer models
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages({library(lme4); library(emmeans)})
base <- function(title, data, formula, family, sections) c(list(title = title, kind = "postfit", data = data, formula = fm(formula), family = family$family, link = family$link, package = "lme4", version = pv("lme4"), method = "Laplace",
  packages = list(lme4 = pv("lme4"), emmeans = pv("emmeans"), car = pv("car"), performance = pv("performance"), insight = pv("insight"), MuMIn = pv("MuMIn"))), sections)
fitg <- function(formula, d, family, ...) { environment(formula) <- globalenv(); assign("d", d, globalenv()); assign(".fam", family, globalenv()); eval(as.call(c(list(quote(lme4::glmer), formula = formula, data = quote(d), family = quote(.fam), control = quote(gc_())), list(...))), globalenv()) }
emm_rows <- function(e, ...) rows(as.data.frame(summary(e, infer = TRUE, ...)))
anova_rows <- function(a) trows(as.data.frame(a), "model")
#@ post_contraception_tests
golden("post_contraception_tests", { d <- load_data("Contraception"); f <- use ~ age + I(age^2) + urban + livch + (1 | district); m <- fitg(f, d, binomial()); ms <- fitg(use ~ age + I(age^2) + urban + livch + (urban | district), d, binomial()); e <- emmeans(m, ~livch)
  base("Contraception: LRT, Anova, emmeans", "Contraception", f, binomial(), list(logLik = as.numeric(logLik(m)), lrt_slope = anova_rows(anova(m, ms)), car_Anova_II = trows(as.data.frame(car::Anova(m))), emm_livch = emm_rows(e), pairs = emm_rows(pairs(e)), response = emm_rows(e, type = "response"), trend_age = emm_rows(emtrends(m, ~urban, var = "age")), r2 = { r <- performance::r2_nakagawa(m); list(marginal = unname(r$R2_marginal), conditional = unname(r$R2_conditional)) })) })
#@ post_cbpp_boot
golden("post_cbpp_boot", { d <- load_data("cbpp"); m <- lme4::glmer(cbf, d, binomial(), control = glmerControl(optimizer = "bobyqa")); b <- bootMer(m, function(x) c(fixef(x), sd = getME(x, "theta")), nsim = 300, seed = 101); q <- apply(b$t, 2, quantile, c(.025, .975), na.rm = TRUE)
  base("cbpp: parametric bootstrap (loose)", "cbpp", cbf, binomial(), list(loose = TRUE, nsim = 300, seed = 101, t0 = obj(as.list(b$t0)), mean = obj(as.list(colMeans(b$t))), sd = obj(as.list(apply(b$t, 2, sd))), percentile_lower = obj(as.list(q[1, ])), percentile_upper = obj(as.list(q[2, ])))) })
