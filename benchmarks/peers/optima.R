# Fits every model of a manifest by glmmTMB and, where its criterion is the same, by lme4; one JSON line a fit.
# Rscript optima.R FOLDER > results. FOLDER holds manifest.json and one CSV a model.
suppressMessages({ library(jsonlite); library(glmmTMB); library(lme4) })
folder <- commandArgs(TRUE)[1]
families <- list(gaussian = gaussian(), poisson = poisson(), binomial = binomial(), nbinom1 = nbinom1(), nbinom2 = nbinom2(), gamma = Gamma(link = "log"), beta = beta_family(), tweedie = tweedie())
quiet <- function(run) suppressMessages(suppressWarnings(tryCatch({ setTimeLimit(elapsed = 60, transient = TRUE); run() },
  error = function(e) e, finally = setTimeLimit(elapsed = Inf))))
say <- function(name, package, fit, read) {
  start <- list(name = name, package = package)
  found <- if (inherits(fit, "error")) list(error = substr(conditionMessage(fit), 1, 200)) else
    tryCatch(read(fit), error = function(e) list(error = substr(conditionMessage(e), 1, 200)))
  cat(toJSON(c(start, found), auto_unbox = TRUE, digits = 16, null = "null", na = "null"), "\n", sep = ""); flush(stdout())
}
plain <- function(v) list(group = v[[1]], cov = matrix(as.numeric(v[[2]]), nrow(v[[2]])))
covariances <- function(vc) lapply(names(vc), function(g) plain(list(g, vc[[g]])))
read_tmb <- function(f) list(loglik = -f$fit$objective, beta = I(unname(fixef(f)$cond)), zi = I(unname(fixef(f)$zi)), disp = I(unname(fixef(f)$disp)), power = I(unname(f$fit$par[names(f$fit$par) == "psi"])),
  vc = covariances(VarCorr(f)$cond), ok = isTRUE(f$sdr$pdHess))
read_structure <- function(f) c(read_tmb(f), list(par = I(unname(getME(f, "theta")))))
read_lme4 <- function(f) list(loglik = as.numeric(logLik(f)), beta = I(unname(fixef(f))), vc = covariances(VarCorr(f)), ok = is.null(f@optinfo$conv$lme4$code))
tight <- glmmTMBControl(optCtrl = list(iter.max = 5000, eval.max = 5000, rel.tol = 1e-14, x.tol = 1e-10))
for (m in fromJSON(file.path(folder, "manifest.json"), simplifyVector = FALSE)) {
  d <- read.csv(file.path(folder, paste0(m$name, ".csv")), stringsAsFactors = TRUE)
  formula <- as.formula(m$formula); zi <- as.formula(m$zi); family <- families[[m$family]]
  if (!is.null(m$disp)) {  # a covariance structure
    d$pos <- numFactor(d$time)
    say(m$name, "glmmTMB", quiet(function() glmmTMB(formula, d, family = family, ziformula = zi, dispformula = as.formula(m$disp), control = tight)), read_structure)
    next
  }
  say(m$name, "glmmTMB", quiet(function() glmmTMB(formula, d, family = family, ziformula = zi, control = tight)), read_tmb)
  if (m$family %in% c("poisson", "binomial") && m$zi == "~0")
    say(m$name, "lme4", quiet(function() glmer(formula, d, family = family, control = glmerControl(check.conv.singular = "ignore"))), read_lme4)
}
