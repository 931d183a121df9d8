# Adapter of lme4. METHOD: REML or ML; laplace, nagq0, agq9 for generalised models
source(file.path(Sys.getenv("BENCH_HOME"), "peers", "harness.R")); suppressMessages(library(lme4))
families <- list(binomial = binomial(), poisson = poisson(), gamma = Gamma(link = "log"))
main(function(m, method) {
  d <- load_data(m); f <- lmer_formula(m)
  if (is.null(m$family)) return(function() lmer(f, d, REML = method == "REML"))
  if (!is.null(m$zero_inflation) || !m$family %in% c(names(families), "nbinom2")) unsupported(m$family)
  n <- nodes(method); family <- families[[m$family]]
  if (n > 1 && grepl("+", m$random[[1]][[1]], fixed = TRUE)) unsupported("quadrature with slopes")
  if (m$family == "nbinom2") function() glmer.nb(f, d, nAGQ = n) else function() glmer(f, d, family = family, nAGQ = n)
}, function(fit) list(criterion = if (isREML(fit)) REMLcrit(fit) else -2 * as.numeric(logLik(fit)), evaluations = fit@optinfo$feval,
                      converged = is.null(fit@optinfo$conv$lme4$code)))
