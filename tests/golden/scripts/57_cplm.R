# 57_cplm.R -- compound Poisson models by cplm
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
cpm <- function(title, data, formula, link = "log", prep = NULL) { suppressMessages(library(cplm)); d <- load_data(data); if (!is.null(prep)) d <- eval(prep, list(d = d), globalenv()); f <- cpglmm(formula, data = d, link = link, control = list(max.iter = 1000, max.fun = 5000)); b <- cplm::fixef(f); V <- as.matrix(vcov(f)); vc <- cplm::VarCorr(f)
  list(title = title, data = data, formula = fm(formula), family = "compound Poisson (Tweedie)", link = link, package = "cplm", version = pv("cplm"), method = "Laplace", nobs = nrow(d), logLik = as.numeric(logLik(f)), AIC = AIC(f), fixef = coef_rows(b, sqrt(diag(V)), test = "t", df = rep(Inf, length(b))), phi = f@phi, p = f@p, varcorr = varcorr_json(vc), deviance = obj(as.list(f@deviance))) }
#@ cplm_fineroot
golden("cplm_fineroot", cpm("FineRoot, Tweedie mixed model", "FineRoot", RLD ~ Stock * Zone + (1 | Plant)))
#@ cplm_sim
golden("cplm_sim", cpm("simulated Tweedie (same model as tmb_tweedie)", "sim_tweedie", y ~ x + (1 | g)))
