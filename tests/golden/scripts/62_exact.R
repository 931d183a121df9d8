# 62_exact.R -- log-likelihoods of models whose own reference is not exact: printed, and copied into golden/glmm.py and
# golden/test_further_packages.py. R 4.2.2, nlme 3.1-162, lme4 1.1-31, glmmTMB 1.1.5.
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages({library(nlme); library(lme4); library(glmmTMB)})
say <- function(...) cat(format(c(...), digits = 14), "\n")
visits <- load_data("sim_visits")
# tmb_cov_us_reml, tmb_cov_homdiag: no random effects beside a residual SD of 1e-4, so that no determinants cancel
tight <- list(opt = "nlminb", tolerance = 1e-14, msTol = 1e-14, maxIter = 500, msMaxIter = 1000)
us <- gls(y_mis ~ trt * visitf + base, visits, na.action = na.omit, correlation = corSymm(form = ~ as.integer(visitf) | id),
          weights = varIdent(form = ~ 1 | visitf), method = "REML", control = do.call(glsControl, tight))
hom <- lme(y ~ trt + base, random = ~ 1 | id, visits, method = "ML",
           control = lmeControl(opt = "nlminb", tolerance = 1e-14, msTol = 1e-14))
say(logLik(us), logLik(hom))
# meta_glmm: rma.glmm leaves the search to lme4's defaults; here Newton steps at the end
b <- load_data("dat_bcg")
arms <- rbind(data.frame(trial = b$trial, yes = b$tpos, no = b$tneg, treated = 1),
              data.frame(trial = b$trial, yes = b$cpos, no = b$cneg, treated = 0))
arms$side <- arms$treated - 0.5; arms$trial <- factor(arms$trial)
newton <- function(p, fn, gr = function(x) grad(fn, x), he = function(x) hessian(fn, x)) {
  for (k in 1:5) p <- p - solve(he(p), as.vector(gr(p)))
  list(par = p, se = sqrt(diag(solve(he(p)))), value = -fn(p)) }
fs <- glmer(cbind(yes, no) ~ 0 + trial + treated + (0 + side | trial), arms, binomial, nAGQ = 7,
            control = glmerControl("bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e6), tolPwrss = 1e-10, calc.derivs = FALSE))
start <- c(getME(fs, "theta"), fixef(fs)); deviance <- update(fs, devFunOnly = TRUE)
found <- newton(start, function(p) deviance(p) / 2); at <- which(names(start) == "treated")
say(found$par[at], found$se[at], found$par[1]^2)
rs <- glmmTMB(cbind(yes, no) ~ treated + (1 | trial) + (0 + side | trial), arms, family = binomial,
              control = glmmTMBControl(optCtrl = list(rel.tol = 1e-14, eval.max = 5000, iter.max = 5000)))
o <- rs$obj; o$env$inner.control <- list(tol = 1e-12, maxit = 1000)
found <- newton(rs$fit$par, o$fn, o$gr, function(p) optimHess(p, o$fn, o$gr, control = list(ndeps = rep(1e-4, length(p)))))
say(found$value, found$par[2], found$se[2], exp(2 * found$par[3:4]))
