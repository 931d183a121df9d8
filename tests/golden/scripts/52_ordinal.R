# 52_ordinal.R -- cumulative link models by ordinal
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages(library(ordinal))
cm <- function(title, data, formula, nAGQ = 1, link = "logit", threshold = "flexible", prep = NULL, extra = list()) {
  d <- load_data(data); if (!is.null(prep)) { d <- eval(prep, list(d = d), globalenv()); extra$data_prep <- fm(prep) }
  assign("d", d, globalenv()); f <- eval(as.call(list(quote(clmm), formula, data = quote(d), link = link, threshold = threshold, nAGQ = nAGQ, Hess = TRUE, control = quote(clmm.control(innerCtrl = "noWarn", method = "nlminb", grtol = 1e-10, maxIter = 500, gradTol = 1e-10, useMatrix = FALSE)))))
  b <- c(f$alpha, f$beta); V <- vcov(f); se <- sqrt(diag(V)); ll <- logLik(f)
  o <- list(title = title, data = data, formula = fm(formula), family = "cumulative", link = link, threshold = threshold, package = "ordinal", version = pv("ordinal"), method = if (nAGQ == 1) "Laplace" else paste("AGQ", nAGQ), nAGQ = nAGQ, call = sprintf("clmm(%s, %s, link = \"%s\", threshold = \"%s\", nAGQ = %d)", fm(formula), data, link, threshold, nAGQ), nobs = nobs(f), npar = attr(ll, "df"), logLik = as.numeric(ll), AIC = AIC(f), BIC = BIC(f),
    fixef = coef_rows(b, se[names(b)], test = "z"), thresholds = vec(names(f$alpha)), vcov = vcov_json(V))
  vc <- VarCorr(f); o$varcorr <- varcorr_json(vc); re <- ranef(f); cv <- tryCatch(condVar(f), error = function(e) NULL); o$ranef <- ranef_json(re); if (!is.null(cv)) for (g in names(re)) o$ranef[[g]]$condsd <- lapply(seq_len(min(6, nrow(re[[g]]))), function(i) I(unname(sqrt(unlist(cv[[g]][i, ])))))
  o$fitted <- hd(fitted(f)); o$grad_norm <- f$optRes$max.grad %||% max(abs(f$gradient)); o$gradient <- vec(f$gradient); o$condition_hessian <- f$condHess
  c(o, extra)
}
#@ clmm_wine1
golden("clmm_wine1", cm("wine, judge random intercept, Laplace", "wine", rating ~ temp + contact + (1 | judge)))
#@ clmm_wine1_agq
golden("clmm_wine1_agq", cm("wine, judge random intercept, 10-point AGQ", "wine", rating ~ temp + contact + (1 | judge), 10))
#@ clmm_wine2
golden("clmm_wine2", cm("wine, judge and bottle random intercepts", "wine", rating ~ temp + contact + (1 | judge) + (1 | bottle)))
#@ clmm_wine_symmetric
golden("clmm_wine_symmetric", cm("wine, symmetric thresholds", "wine", rating ~ temp * contact + (1 | judge), 1, "logit", "symmetric"))
#@ clm_wine
golden("clm_wine", { d <- load_data("wine"); f <- clm(rating ~ temp + contact, data = d, control = clm.control(gradTol = 1e-12)); V <- vcov(f); b <- coef(f)
  list(title = "wine, no random effect (clm)", data = "wine", formula = "rating ~ temp + contact", family = "cumulative", link = "logit", package = "ordinal", version = pv("ordinal"), method = "ML", nobs = nobs(f), npar = length(b), logLik = as.numeric(logLik(f)), AIC = AIC(f), BIC = BIC(f), fixef = coef_rows(b, sqrt(diag(V)), test = "z"), vcov = vcov_json(V), fitted = hd(fitted(f)), grad_norm = max(abs(f$gradient))) })
