# 33_glmmTMB_postfit.R -- inference and post-fit quantities for glmmTMB models
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
source(file.path(ROOT, "scripts", "common_tmb.R"))
suppressMessages({library(emmeans)})
base <- function(title, data, formula, family, sections) c(list(title = title, kind = "postfit", data = data, formula = fm(formula), family = family, package = "glmmTMB", version = pv("glmmTMB"), method = "ML (Laplace)", packages = list(glmmTMB = pv("glmmTMB"), emmeans = pv("emmeans"), car = pv("car"))), sections)
fitt <- function(formula, d, ...) { environment(formula) <- globalenv(); assign("d", d, globalenv()); eval(as.call(c(list(quote(glmmTMB), formula = formula, data = quote(d), control = quote(tc())), as.list(substitute(list(...)))[-1])), globalenv()) }
emm_rows <- function(e, ...) rows(as.data.frame(summary(e, infer = TRUE, ...)))
tr <- function(e, what = "") tryCatch(e, error = function(x) { note(what, ": ", conditionMessage(x)); NULL })
ci_rows <- function(ci) trows(setNames(as.data.frame(ci), gsub(" %", "", gsub("2.5 %", "lower", gsub("97.5 %", "upper", colnames(ci), fixed = TRUE), fixed = TRUE))))
#@ tmbpost_beta_disp
golden("tmbpost_beta_disp", { d <- load_data("sim_beta"); f <- y ~ x + (1 | g); m <- fitt(f, d, dispformula = ~z, family = beta_family()); m0 <- fitt(f, d, family = beta_family()); m <- fitt(f, d, dispformula = ~z, family = beta_family())
  base("beta: LRT of the dispersion model, dispersion predictions, Wald intervals", "sim_beta", f, "beta, dispformula = ~z", list(lrt = trows(as.data.frame(anova(m0, m)), "model"), wald = ci_rows(confint(m, component = "all")), disp_head = hd(predict(m, type = "disp")), pearson_head = hd(residuals(m, "pearson")), emm_disp = tr(emm_rows(emmeans(m, ~z, component = "disp", at = list(z = c(0, 1)))), "emm disp"))) })
#@ tmbpost_sal_tests
golden("tmbpost_sal_tests", { d <- load_data("Salamanders"); f <- count ~ spp + mined + (1 | site); m <- fitt(f, d, ziformula = ~mined, family = nbinom2()); m0 <- fitt(count ~ spp + (1 | site), d, ziformula = ~mined, family = nbinom2()); m <- fitt(f, d, ziformula = ~mined, family = nbinom2()); e <- emmeans(m, ~spp); ez <- emmeans(m, ~mined, component = "zi")
  base("Salamanders ZINB2: LRT, Anova, emmeans", "Salamanders", f, "nbinom2, ziformula = ~mined", list(logLik = as.numeric(logLik(m)), lrt = trows(as.data.frame(anova(m0, m)), "model"), car_Anova_II = tr(trows(as.data.frame(car::Anova(m))), "Anova"), car_Anova_zi = tr(trows(as.data.frame(car::Anova(m, component = "zi"))), "Anova zi"), emm = emm_rows(e), response = emm_rows(e, type = "response"), pairs_ratio = emm_rows(pairs(e), type = "response"), emm_zi = emm_rows(ez), emm_zi_response = emm_rows(ez, type = "response"), emm_response_combined = tr(emm_rows(emmeans(m, ~mined, component = "response")), "component=response"))) })
#@ tmbpost_visits_ddf
golden("tmbpost_visits_ddf", { d <- load_data("sim_visits"); f <- y ~ trt * visitf + base + (1 | id); m <- fitt(f, d, REML = TRUE); s <- tr(coef(summary(m, ddf = "satterthwaite"))$cond, "satt"); k <- tr(coef(summary(m, ddf = "kenward-roger"))$cond, "KR"); mT <- lmerTest::lmer(f, d, control = lc())
  base("sim_visits: glmmTMB ddf against lmerTest", "sim_visits", f, "gaussian, REML", list(logLik = as.numeric(logLik(m)), satterthwaite = if (!is.null(s)) trows(as.data.frame(s)), kenward_roger = if (!is.null(k)) trows(as.data.frame(k)), lmerTest_satterthwaite = trows(as.data.frame(coef(summary(mT)))), lmerTest_kenward_roger = trows(as.data.frame(coef(summary(mT, ddf = "Kenward-Roger")))))) })
