# Adapter of glmmTMB. METHOD: REML or ML
source(file.path(Sys.getenv("BENCH_HOME"), "peers", "harness.R")); suppressMessages(library(glmmTMB))
main(function(m, method) {
  d <- load_data(m); f <- lmer_formula(m)
  function() glmmTMB(f, d, REML = method == "REML")
}, function(fit) list(criterion = -2 * as.numeric(logLik(fit)), evaluations = fit$fit$evaluations[[1]],
                      converged = fit$fit$convergence == 0 && isTRUE(fit$sdr$pdHess)))
