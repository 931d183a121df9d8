# Adapter of lme4. METHOD: REML or ML
source(file.path(Sys.getenv("BENCH_HOME"), "peers", "harness.R")); suppressMessages(library(lme4))
main(function(m, method) {
  d <- load_data(m); f <- lmer_formula(m)
  function() lmer(f, d, REML = method == "REML")
}, function(fit) list(criterion = if (isREML(fit)) REMLcrit(fit) else -2 * as.numeric(logLik(fit)), evaluations = fit@optinfo$feval,
                      converged = is.null(fit@optinfo$conv$lme4$code)))
