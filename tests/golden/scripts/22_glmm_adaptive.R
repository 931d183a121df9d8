# 22_glmm_adaptive.R -- adaptive Gauss-Hermite models by GLMMadaptive::mixed_model
# Many quadrature points on purpose: the results are then the maximum of the (numerically) exact
# marginal likelihood and do not depend on how the nodes are placed.
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages(library(GLMMadaptive))
#' fit, then refit from the optimum (fresh quadrature points) until the log-likelihood stops moving
ma <- function(title, data, fixed, random, family, nAGQ = 11, zi_fixed = NULL, zi_random = NULL, n_phis = NULL, prep = NULL, refits = 6, extra = list(), ...) {
  d <- load_data(data); if (!is.null(prep)) { d <- eval(prep, list(d = d), globalenv()); extra$data_prep <- fm(prep) }
  cl <- list(quote(mixed_model), fixed = fixed, random = random, data = quote(d), family = family, nAGQ = nAGQ)
  if (!is.null(zi_fixed)) cl$zi_fixed <- zi_fixed; if (!is.null(zi_random)) cl$zi_random <- zi_random; if (!is.null(n_phis)) cl$n_phis <- n_phis
  run <- function(init = NULL, em = 30) { k <- cl; if (!is.null(init)) k$initial_values <- init; k$control <- list(iter_EM = em, iter_qN = 500, iter_qN_outer = 40, update_GH_every = 5, tol1 = 1e-10, tol2 = 1e-12, tol3 = 1e-14, max_coef_value = 1e3); eval(as.call(k)) }
  fit <- run(); hist <- as.numeric(logLik(fit))
  for (it in seq_len(refits)) { init <- list(betas = fixef(fit), D = fit$D); if (!is.null(fit$phis)) init$phis <- fit$phis; if (!is.null(fit$gammas)) init$gammas <- fit$gammas
    f2 <- tryCatch(run(init, 0), error = function(e) NULL); if (is.null(f2)) break; hist <- c(hist, as.numeric(logLik(f2))); df <- max(abs(unlist(fixef(f2)) - unlist(fixef(fit)))); fit <- f2; if (abs(diff(tail(hist, 2))) < 1e-9 && df < 1e-7) break }
  ll <- logLik(fit); V <- vcov(fit); nm <- colnames(V); se <- sqrt(diag(V)); b <- fixef(fit); g <- fit$gammas
  o <- list(title = title, data = data, formula = fm(fixed), random = fm(random), zi_formula = if (!is.null(zi_fixed)) fm(zi_fixed), zi_random = if (!is.null(zi_random)) fm(zi_random), family = fit$family$family, link = fit$family$link, package = "GLMMadaptive", version = pv("GLMMadaptive"), method = paste0("AGHQ ", nAGQ), nAGQ = nAGQ, call = paste(deparse(as.call(cl), 500), collapse = " "),
    nobs = length(fit$y %||% model.response(model.frame(fit))), ngroups = length(unique(fit$id[[1]])), npar = attr(ll, "df"), logLik = as.numeric(ll), AIC = AIC(fit), BIC = BIC(fit), logLik_history = vec(hist))
  o$nobs <- nrow(d)
  rows <- coef_rows(b, se[seq_along(b)], test = "z"); k <- length(b)
  if (length(g)) { ig <- match(paste0("zi_", names(g)), nm); rows <- c(rows, coef_rows(g, se[ig], test = "z", component = "zi")) }
  o$fixef <- rows; o$vcov <- list(terms = vec(nm), matrix = mat(V), note = "D_ij: log-Cholesky parameters of D as GLMMadaptive names them")
  D <- fit$D; if (is.list(D)) D <- D[[1]]; o$varcorr <- list(list(component = "cond", group = fit$id_name %||% names(fit$id), terms = vec(colnames(D) %||% "(Intercept)"), sd = vec(sqrt(diag(D))), corr = mat(cov2cor(D))))
  o$phis <- vec(fit$phis); o$phis_names <- vec(names(fit$phis))
  re <- ranef(fit); pv_ <- fit$post_vars; o$ranef <- list(); k <- min(6, nrow(re)); o$ranef[["id"]] <- list(nlevels = nrow(re), levels = vec(rownames(re)[seq_len(k)]), terms = vec(colnames(re)), estimate = mat(re[seq_len(k), , drop = FALSE]), condsd = lapply(seq_len(k), function(i) I(unname(sqrt(diag(as.matrix(pv_[[i]])))))))
  o$fitted <- hd(fitted(fit, type = "subject_specific")); o$fitted_mean <- hd(fitted(fit, type = "mean_subject"))
  mg <- tryCatch({ set.seed(1); marginal_coefs(fit, std_errors = FALSE)$betas }, error = function(e) NULL); if (!is.null(mg)) o$marginal_coefs_mc <- obj(as.list(mg))
  c(o, extra)
}
#@ ma_longbin_diag
golden("ma_longbin_diag", ma("binary, uncorrelated random effects (||)", "sim_longbin", y ~ time * sex, ~ time || id, binomial(), 21, refits = 0))
#@ ma_toenail_int
golden("ma_toenail_int", ma("toenail, random intercept, 61 points (needed: 20 points leave an error of 0.02 in logLik)", "toenail", y ~ treatment * time, ~ 1 | patientID, binomial(), 61, prep = quote({ d$y <- as.integer(d$outcome == levels(d$outcome)[2]); d })))
#@ ma_cbpp
golden("ma_cbpp", ma("cbpp, 41 points", "cbpp", cbind(incidence, size - incidence) ~ period, ~ 1 | herd, binomial(), 41))
#@ ma_epil_poisson
golden("ma_epil_poisson", ma("epil, Poisson, 41 points", "epil", y ~ lbase * trt + lage + V4, ~ 1 | subject, poisson(), 41))
#@ ma_zip
golden("ma_zip", ma("zero-inflated Poisson", "sim_longbin", zip ~ time, ~ 1 | id, zi.poisson(), 41, zi_fixed = ~ sex))
#@ ma_nb
golden("ma_nb", ma("negative binomial", "sim_longbin", nb ~ time * sex, ~ 1 | id, negative.binomial(), 41, n_phis = 1))
#@ ma_hurdle_poisson
golden("ma_hurdle_poisson", ma("hurdle Poisson", "sim_counts", hurdle ~ x, ~ 1 | g, hurdle.poisson(), 41, zi_fixed = ~ 1))
#@ ma_beta
golden("ma_beta", ma("beta", "sim_beta", y ~ x, ~ 1 | g, beta.fam(), 41, n_phis = 1))
#@ ma_gamma
golden("ma_gamma", ma("Gamma", "sim_cont", y_gamma ~ x, ~ 1 | g, Gamma.fam(), 41, n_phis = 1))
#@ ma_student
golden("ma_student", ma("Student t with 4 df", "sim_cont", y_t ~ x, ~ 1 | g, students.t(df = 4), 41, n_phis = 1))
#@ ma_censored
golden("ma_censored", ma("right-censored normal", "sim_cont", cbind(y_cens, cens) ~ x, ~ 1 | g, censored.normal(), 41, n_phis = 1, prep = quote({ d$cens <- ifelse(d$cens == 1, 2, 0); d }), extra = list(censoring_note = "second response column: 0 observed, 1 left-, 2 right-censored (see the package's censored.normal)")))
