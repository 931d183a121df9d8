# Adapter of ordinal. METHOD: laplace, agq9
source(file.path(Sys.getenv("BENCH_HOME"), "peers", "harness.R")); suppressMessages(library(ordinal))
main(function(m, method) {
  if (!identical(m$family, "cumulative") || nodes(method) == 0) unsupported(method)
  frame <- load_data(m); f <- lmer_formula(m); n <- nodes(method)
  environment(f) <- globalenv(); assign("frame", frame, globalenv())
  function() clmm(f, data = frame, nAGQ = n)
}, function(fit) list(criterion = -2 * as.numeric(logLik(fit)), evaluations = fit$optRes$counts[[1]], converged = fit$optRes$convergence == 0))
