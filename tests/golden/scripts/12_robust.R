# 12_robust.R -- clubSandwich: coefficients with Satterthwaite's df, joint tests by Hotelling's T^2 (HTZ)
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages({ library(lme4); library(nlme); library(clubSandwich) })
mk <- function(f, d) { assign("d", d, globalenv()); eval(as.call(list(quote(lme4::lmer), f, data = quote(d), REML = TRUE, control = quote(lc()))), globalenv()) }
tests <- function(fit, cluster, joint, kinds = c("CR0", "CR1", "CR1S", "CR2", "CR3")) lapply(setNames(kinds, kinds), function(k) {
  v <- vcovCR(fit, cluster = cluster, type = k); ct <- coef_test(fit, vcov = v, test = "Satterthwaite")
  list(terms = vec(rownames(ct)), beta = vec(ct$beta), SE = vec(ct$SE), df = vec(ct$df_Satt %||% ct$df),
       joint = lapply(joint, function(at) { w <- Wald_test(fit, constraints = constrain_zero(at), vcov = v, test = "HTZ"); list(at = vec(at), F = w$Fstat, numdf = w$df_num, dendf = w$df_denom, p = w$p_val) }))
})
one <- function(title, data, formula, fit, cluster, joint, kinds = c("CR0", "CR1", "CR1S", "CR2", "CR3"), ...)
  list(title = title, kind = "robust", data = data, formula = formula, family = "gaussian", link = "identity", package = "clubSandwich", version = pv("clubSandwich"), method = "REML", logLik = as.numeric(logLik(fit)), ..., tests = tests(fit, cluster, joint, kinds))
#@ robust_sleepstudy
golden("robust_sleepstudy", { d <- load_data("sleepstudy"); m <- mk(Reaction ~ Days + (Days | Subject), d)
  one("sleepstudy: CR0 to CR3, HTZ", "sleepstudy", "Reaction ~ Days + (Days | Subject)", m, d$Subject, list(1:2), by = "Subject") })
#@ robust_oats
golden("robust_oats", { d <- load_data("Oats"); m <- mk(yield ~ Variety * nitro + (1 | Block / Variety), d)
  one("Oats, six clusters: joint tests with few clusters", "Oats", "yield ~ Variety * nitro + (1 | Block/Variety)", m, d$Block, list(2:3, 5:6, 4L, c(4L, 5L, 6L)), by = "Block") })
#@ robust_orthodont
golden("robust_orthodont", { d <- load_data("Orthodont"); m <- mk(distance ~ age * Sex + (age | Subject), d)
  one("Orthodont: unequal groups of clusters", "Orthodont", "distance ~ age * Sex + (age | Subject)", m, d$Subject, list(3:4, 2:4), by = "Subject") })
#@ robust_lme_varident
golden("robust_lme_varident", { d <- load_data("Orthodont"); assign("d", d, globalenv())
  m <- lme(distance ~ age * Sex, random = ~ 1 | Subject, weights = varIdent(form = ~ 1 | Sex), data = d, control = lmeControl(opt = "optim", msMaxIter = 500, reltol = 1e-15, msTol = 1e-12, tolerance = 1e-12))
  one("Orthodont: a residual variance for each sex, by lme", "Orthodont", "distance ~ age * Sex + (1 | Subject)", m, d$Subject, list(3:4, 2:4), c("CR0", "CR2"), by = "Subject", dispersion = "~ Sex") })
## generalised linear models; tolerances of glm() as tight as they go
glmtests <- function(title, data, formula, family, link, call, cluster, joint, by, ...)
  { fit <- glm(call$f, family = call$family, data = call$d, epsilon = 1e-14, maxit = 100)
  list(title = title, kind = "robust", data = data, formula = formula, family = family, link = link, package = "clubSandwich", version = pv("clubSandwich"), method = "ML", logLik = as.numeric(logLik(fit)), ..., by = by, tests = tests(fit, cluster, joint)) }
#@ robust_glm_binomial
golden("robust_glm_binomial", { d <- load_data("cbpp")
  glmtests("cbpp without random effects: CR0 to CR3", "cbpp", "cbind(incidence, size - incidence) ~ period", "binomial", "logit", list(f = cbind(incidence, size - incidence) ~ period, family = binomial, d = d), d$herd, list(2:4, 3:4), "herd") })
#@ robust_glm_probit
golden("robust_glm_probit", { d <- load_data("cbpp")
  glmtests("cbpp, another link than the canonical one", "cbpp", "cbind(incidence, size - incidence) ~ period", "binomial", "probit", list(f = cbind(incidence, size - incidence) ~ period, family = binomial("probit"), d = d), d$herd, list(2:4), "herd") })
#@ robust_glm_poisson
golden("robust_glm_poisson", { d <- load_data("Salamanders")
  glmtests("Salamanders: a column that does not vary within clusters, and an offset", "Salamanders", "count ~ mined + cover + offset(DOY)", "poisson", "log", list(f = count ~ mined + cover + offset(DOY), family = poisson, d = d), d$site, list(2:3), "site") })
