# Adapter of glmmTMB. METHOD: REML or ML; laplace for generalised models
source(file.path(Sys.getenv("BENCH_HOME"), "peers", "harness.R")); suppressMessages(library(glmmTMB))
families <- list(binomial = binomial(), poisson = poisson(), gamma = Gamma(link = "log"), nbinom2 = nbinom2(), beta = beta_family(), tweedie = tweedie())
main(function(m, method) {
  d <- load_data(m); f <- lmer_formula(m)
  if (is.null(m$family)) return(function() glmmTMB(f, d, REML = method == "REML"))
  if (nodes(method) != 1 || !m$family %in% names(families)) unsupported(paste(method, m$family))
  family <- families[[m$family]]; zi <- if (is.null(m$zero_inflation)) ~0 else as.formula(paste("~", m$zero_inflation))
  function() glmmTMB(f, d, family = family, ziformula = zi)
}, function(fit) list(criterion = 2 * fit$fit$objective, evaluations = fit$fit$evaluations[[1]],
                      converged = fit$fit$convergence == 0 && isTRUE(fit$sdr$pdHess)))
