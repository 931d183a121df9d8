# 55_blme.R -- blme (modes with priors)
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages({library(lme4); library(blme)})
bl <- function(title, data, expr, prior) { d <- load_data(data); assign("d", d, globalenv()); f <- eval(expr, globalenv()); isg <- isGLMM(f); dv <- f@devcomp$cmp
  o <- (if (isg) glmer_json else extract_mer)(f, title, data, if (isg) "Laplace + priors (MAP)" else if (isREML(f)) "REML + priors (MAP)" else "ML + priors (MAP)", call = paste(deparse(expr, 500), collapse = " "))
  o$package <- "blme"; o$version <- pv("blme"); o$prior <- prior; o$objective <- NULL; o$objective_name <- NULL; o$logLik_note <- "logLik is the (restricted) log-likelihood at the MAP estimate, without the prior"; o$prior_printed <- vec(capture.output(print(f@priors)))[1:min(12, length(capture.output(print(f@priors))))]; o$devcomp <- obj(as.list(dv)); o }
#@ blme_dyestuff2
golden("blme_dyestuff2", bl("Dyestuff2, default prior keeps the variance away from 0", "Dyestuff2", quote(blmer(Yield ~ 1 + (1 | Batch), d, control = lc())), "cov.prior = wishart (default)"))
#@ blme_cbpp_normal
golden("blme_cbpp_normal", bl("cbpp, normal prior on fixed effects", "cbpp", quote(bglmer(cbind(incidence, size - incidence) ~ period + (1 | herd), d, family = binomial, fixef.prior = normal(sd = c(10, 2.5)), control = gc_())), "fixef.prior = normal(sd = c(10, 2.5)), cov.prior = wishart (default)"))
#@ blme_cbpp_t
golden("blme_cbpp_t", bl("cbpp, t prior on fixed effects", "cbpp", quote(bglmer(cbind(incidence, size - incidence) ~ period + (1 | herd), d, family = binomial, fixef.prior = t(df = 3, scale = c(10, 2.5)), control = gc_())), "fixef.prior = t(df = 3, scale = c(10, 2.5))"))
#@ blme_oats_resid
golden("blme_oats_resid", bl("Oats, point prior on the residual sd", "Oats", quote(blmer(yield ~ nitro + (1 | Block/Variety), d, resid.prior = point(13), control = lc())), "resid.prior = point(13)"))
