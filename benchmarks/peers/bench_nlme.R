# Adapter of nlme::lme, which has nested grouping only. METHOD: REML or ML
source(file.path(Sys.getenv("BENCH_HOME"), "peers", "harness.R")); suppressMessages(library(nlme))
NESTED <- c("Pastes", "Chem97", "nested3")
main(function(m, method) {
  if (length(m$random) > 1 && !(m$csv %in% NESTED)) unsupported("nested grouping only")
  d <- load_data(m); f <- as.formula(paste(m$y, "~", m$fixed)); groups <- rev(sapply(m$random, `[[`, 2))
  random <- as.formula(sprintf("~ %s | %s", m$random[[1]][[1]], paste(groups, collapse = "/")))
  function() lme(f, d, random = random, method = method)
}, function(fit) list(criterion = -2 * as.numeric(logLik(fit)), converged = TRUE))
