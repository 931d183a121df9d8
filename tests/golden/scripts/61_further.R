# 61_further.R -- single models of spaMM, metafor and betareg
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
sp <- function(title, data, formula, family = gaussian(), method = "REML", prep = NULL, extra = list(), init = list(), ...) {
  suppressMessages(library(spaMM)); d <- load_data(data); if (!is.null(prep)) { d <- eval(prep, list(d = d), globalenv()); extra$data_prep <- fm(prep) }
  assign("d", d, globalenv()); spaMM.options(separation_max = 10, optimizer = "nlminb"); f <- fitme(formula, data = d, family = family, method = method, control = list(nlminb = list(rel.tol = 1e-13, x.tol = 1e-11)), init = init, ...)
  b <- fixef(f); V <- as.matrix(vcov(f)); ll <- logLik(f); cp <- tryCatch(get_ranPars(f), error = function(e) NULL)
  c(list(title = title, data = data, formula = fm(formula), family = family$family, link = family$link, package = "spaMM", version = pv("spaMM"), method = method, call = sprintf("fitme(%s, family = %s, method = \"%s\")", fm(formula), family$family, method), nobs = nrow(d), logLik = as.numeric(ll), logLik_name = names(ll), APHLs = obj(lapply(f$APHLs[intersect(c("p_v", "p_bv", "h", "clik"), names(f$APHLs))], as.numeric)), fixef = coef_rows(b, sqrt(diag(V)), test = "t", df = rep(Inf, length(b))), vcov = vcov_json(V), lambda = vec(unlist(f$lambda)), lambda_names = vec(names(unlist(f$lambda))), phi = vec(unlist(f$phi)[1]), corrPars = if (!is.null(cp)) rapply(cp$corrPars %||% list(), function(x) as.numeric(x), how = "list"), ranef_head = lapply(ranef(f), function(z) hd(as.numeric(z))), fitted = hd(fitted(f)), aic = tryCatch(obj(as.list(AIC(f, verbose = FALSE))), error = function(e) NULL)), extra)
}
M <- function(title, data, formula, pkg, ...) list(title = title, kind = "postfit", data = data, formula = formula, family = "gaussian", link = "identity", package = pkg, version = pv(pkg), ...)
#@ spamm_loaloa_matern
golden("spamm_loaloa_matern", sp("Loaloa, binomial with Matern field, nu estimated", "Loaloa", cbind(npos, ntot - npos) ~ elev1 + elev2 + elev3 + elev4 + maxNDVI1 + seNDVI + Matern(1 | longitude + latitude), binomial(), "PQL/L"))
#@ spamm_gamma_glmm
golden("spamm_gamma_glmm", sp("Gamma GLMM with log link, Laplace ML", "sim_cont", y_gamma ~ x + (1 | g), Gamma("log"), "ML"))
#@ spamm_nb
golden("spamm_nb", sp("NB GLMM, Laplace ML", "sim_counts", nb ~ x + (1 | g), negbin(), "ML"))
#@ meta_glmm
golden("meta_glmm", { suppressMessages(library(metafor)); d <- load_data("dat_bcg"); f <- rma.glmm(measure = "OR", ai = tpos, bi = tneg, ci = cpos, di = cneg, data = d, model = "UM.FS", nAGQ = 7, control = list(package = "lme4")); f2 <- rma.glmm(measure = "OR", ai = tpos, bi = tneg, ci = cpos, di = cneg, data = d, model = "UM.RS", nAGQ = 1); list(title = "BCG vaccine, logistic mixed meta-analysis (rma.glmm)", data = "dat_bcg", formula = "UM.FS and UM.RS", family = "binomial", link = "logit", package = "metafor", version = pv("metafor"), method = "ML", nobs = f$k, UM_FS = list(beta = f$beta[1], se = f$se, tau2 = f$tau2, LRT = f$QE.LRT, Wald = f$QE.Wld), UM_RS = list(beta = f2$beta[1], se = f2$se, tau2 = f2$tau2, sigma2 = f2$sigma2)) })
#@ misc_betareg
golden("misc_betareg", { suppressMessages(library(betareg)); d <- load_data("FoodExpenditure"); f <- betareg(I(food/income) ~ income + persons, data = d, control = betareg.control(fstol = 1e-12, reltol = 1e-14)); V <- vcov(f); b <- coef(f); r <- M("betareg on FoodExpenditure (same model as tmb_beta_food)", "FoodExpenditure", "I(food/income) ~ income + persons", "betareg", method = "ML", logLik = as.numeric(logLik(f)), AIC = AIC(f), fixef = coef_rows(b, sqrt(diag(V)), test = "z"), vcov = vcov_json(V), pseudo_r2 = f$pseudo.r.squared, fitted = hd(fitted(f))); r$family <- "beta"; r$link <- "logit"; r$kind <- "model"; r })
