# 21_glmm_lme4.R -- generalised linear mixed models by lme4::glmer
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages(library(lme4))
glmm <- function(title, data, formula, family, nAGQ = 1L, weights = NULL, prep = NULL, opt = list(), extra = list(), exact = TRUE) {
  d <- load_data(data); if (!is.null(prep)) { d <- eval(prep, d0 <- list(d = d), globalenv()); extra$data_prep <- fm(prep) }
  environment(formula) <- environment()
  if (!is.null(weights)) { d$.w <- d[[weights]]; extra$weights_column <- weights }
  fit <- if (is.null(weights)) glmer(formula, d, family = family, nAGQ = nAGQ, control = gc_(opt = opt))
         else glmer(formula, d, family = family, nAGQ = nAGQ, weights = .w, control = gc_(opt = opt))
  call <- sprintf("glmer(%s, %s, family = %s(link = \"%s\"), nAGQ = %d%s)", fm(formula), data, family$family, family$link, nAGQ, if (is.null(weights)) "" else paste0(", weights = ", weights))
  extra$nAGQ <- nAGQ
  if (nAGQ > 1) extra$logLik_note <- "lme4's logLik for nAGQ > 1 leaves out the constant log-likelihood of the saturated model; logLik_full adds it back"
  m <- if (nAGQ == 0) "PIRLS (nAGQ = 0)" else if (nAGQ == 1) "Laplace" else paste0("AGQ ", nAGQ)
  o <- glmer_json(fit, title = title, data = data, method = m, call = call, extra = extra, exact = exact && nAGQ > 0)
  if (nAGQ > 1) {   # saturated log-likelihood of the response
    y <- model.response(model.frame(fit)); w <- fit@resp$weights; yy <- fit@resp$y
    sat <- switch(family$family, binomial = sum(dbinom(round(yy * w), round(w), yy, log = TRUE)), poisson = sum(dpois(yy, yy, log = TRUE)))
    o$logLik_full <- o$logLik + sat
  }
  o
}
cb <- cbind(incidence, size - incidence) ~ period + (1 | herd)
#@ glmm_cbpp_laplace
golden("glmm_cbpp_laplace", glmm("cbpp, Laplace", "cbpp", cb, binomial()))
#@ glmm_cbpp_agq9
golden("glmm_cbpp_agq9", glmm("cbpp, 9-point AGQ", "cbpp", cb, binomial(), 9L))
#@ glmm_cbpp_agq25
golden("glmm_cbpp_agq25", glmm("cbpp, 25-point AGQ", "cbpp", cb, binomial(), 25L))
#@ glmm_cbpp_cloglog
golden("glmm_cbpp_cloglog", glmm("cbpp, complementary log-log link", "cbpp", cb, binomial("cloglog")))
#@ glmm_verbagg_laplace
golden("glmm_verbagg_laplace", glmm("VerbAgg, crossed persons and items", "VerbAgg", r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item), binomial()))
#@ glmm_verbagg_nagq0
golden("glmm_verbagg_nagq0", glmm("VerbAgg, two-way interactions, nAGQ = 0", "VerbAgg", r2 ~ (Anger + Gender + btype + situ)^2 + (1 | id) + (1 | item), binomial(), 0L))
#@ glmm_grouseticks_laplace
golden("glmm_grouseticks_laplace", glmm("grouseticks, three random effects incl. observation level", "grouseticks", TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION), poisson()))
#@ glmm_contraception_laplace
golden("glmm_contraception_laplace", glmm("Contraception, random intercept", "Contraception", use ~ age + I(age^2) + urban + livch + (1 | district), binomial()))
#@ glmm_contraception_agq9
golden("glmm_contraception_agq9", glmm("Contraception, 9-point AGQ", "Contraception", use ~ age + I(age^2) + urban + livch + (1 | district), binomial(), 9L))
#@ glmm_toenail_laplace
golden("glmm_toenail_laplace", glmm("toenail, large random-effect variance, Laplace", "toenail", outcome ~ treatment * time + (1 | patientID), binomial()))
#@ glmm_toenail_agq20
golden("glmm_toenail_agq20", glmm("toenail, 20-point AGQ", "toenail", outcome ~ treatment * time + (1 | patientID), binomial(), 20L))
#@ glmm_bacteria_laplace
golden("glmm_bacteria_laplace", glmm("bacteria, Laplace", "bacteria", y ~ trt + I(week > 2) + (1 | ID), binomial()))
#@ glmm_bacteria_agq10
golden("glmm_bacteria_agq10", glmm("bacteria, 10-point AGQ", "bacteria", y ~ trt + I(week > 2) + (1 | ID), binomial(), 10L))
#@ glmm_longbin_slope
golden("glmm_longbin_slope", glmm("binary, random intercept and slope, Laplace", "sim_longbin", y ~ time * sex + (time | id), binomial()))
#@ glmm_epil_poisson
golden("glmm_epil_poisson", glmm("epil, Poisson", "epil", y ~ lbase * trt + lage + V4 + (1 | subject), poisson()))
#@ glmm_arabidopsis
golden("glmm_arabidopsis", glmm("Arabidopsis, Poisson, nested random effects and status", "Arabidopsis", total.fruits ~ nutrient * amd + rack + status + (1 | popu) + (1 | gen), poisson()))
#@ glmm_mmmec_offset
golden("glmm_mmmec_offset", glmm("Mmmec, Poisson with offset, nested", "Mmmec", deaths ~ uvb + offset(log(expected)) + (1 | nation/region), poisson()))
#@ glmm_salamanders_poisson
golden("glmm_salamanders_poisson", glmm("Salamanders, Poisson, species x mined", "Salamanders", count ~ spp * mined + (1 | site), poisson()))
#@ glmm_gamma_log
golden("glmm_gamma_log", { o <- glmm("Gamma, log link (lme4's own scale handling)", "sim_cont", y_gamma ~ x + (1 | g), Gamma("log"))
  note("lme4 profiles the Gamma scale in its own way: logLik is not the ML Laplace likelihood that glmmTMB maximizes; compare with tmb_gamma_log"); o })
#@ glmm_probit_binomial
golden("glmm_probit_binomial", glmm("binomial counts, probit", "sim_cont", cbind(k_probit, trials - k_probit) ~ x + (1 | g), binomial("probit")))
nbfit <- function(title, data, formula) {
  d <- load_data(data); environment(formula) <- environment()
  f1 <- function(lt) glmer(formula, d, family = MASS::negative.binomial(theta = exp(lt)), control = gc_(tolPwrss = 1e-11))
  pk <- glmer.nb(formula, d, control = glmerControl(optimizer = "bobyqa")); lt0 <- log(getME(pk, "glmer.nb.theta"))
  o <- optimize(function(l) -2 * as.numeric(logLik(f1(l))), lt0 + c(-.5, .5), tol = 1e-9)
  fit <- f1(o$minimum); ll <- as.numeric(logLik(fit)); k <- attr(logLik(fit), "df") + 1
  r <- extract_mer(fit, title, data, "Laplace", call = sprintf("glmer.nb(%s, %s), theta then refined by Brent (tol 1e-9)", fm(formula), data))
  r$family <- "negative.binomial (NB2, size = nb_theta)"; r$nb_theta <- exp(o$minimum); r$npar <- k; r$AIC <- -2 * ll + 2 * k; r$BIC <- -2 * ll + log(nobs(fit)) * k; r$df_residual <- nobs(fit) - k
  r$glmer_nb <- list(theta = getME(pk, "glmer.nb.theta"), logLik = as.numeric(logLik(pk)), fixef = obj(fixef(pk)))
  r$se_note <- "SEs are conditional on nb_theta (as lme4 reports them)"
  r
}
#@ glmm_contraception_cells
golden("glmm_contraception_cells", glmm("Contraception, districts' urban and rural parts (Bates)", "Contraception", use ~ age * urban + I(age^2) + livch + (1 | urban:district), binomial()))
