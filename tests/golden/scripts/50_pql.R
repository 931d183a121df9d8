# 50_pql.R -- MASS::glmmPQL
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages({library(MASS); library(nlme)})
pql <- function(title, data, fixed, random, family, correlation = NULL, extra = list()) {
  d <- load_data(data); ctl <- lmeControl(maxIter = 500, msMaxIter = 1000, tolerance = 1e-11, msTol = 1e-12, niterEM = 50, opt = "nlminb", returnObject = TRUE)
  ## glmmPQL itself stops at a relative change of 1e-6 in eta^2: the same iteration is continued here to 1e-14
  assign("d", d, globalenv()); d0 <- glmmPQL(fixed, random, family, d, verbose = FALSE, correlation = correlation)
  f <- pql_tight(fixed, random, family, d, correlation, ctl); s <- summary(f); tt <- s$tTable; tt0 <- summary(d0)$tTable; fam <- family
  o <- list(title = title, data = data, formula = fm(fixed), random = fm(random), family = fam$family, link = fam$link, package = "MASS", version = pv("MASS"), method = "PQL (ML for the working model)", call = sprintf("glmmPQL(%s, random = %s, family = %s, data = %s)", fm(fixed), fm(random), fam$family, data),
    nobs = nrow(d), ngroups = obj(vapply(f$groups, function(g) length(unique(g)), 1L)), fixef = lapply(seq_len(nrow(tt)), function(i) list(component = "cond", term = rownames(tt)[i], estimate = tt[i, 1], se = tt[i, 2], df = tt[i, 3], statistic = tt[i, 4], p = tt[i, 5], estimate_default = tt0[i, 1], se_default = tt0[i, 2])), vcov = vcov_json(f$varFix), sigma = f$sigma)
  rs <- f$modelStruct$reStruct; o$varcorr <- lapply(rev(seq_along(rs)), function(q) { V <- as.matrix(rs[[q]]) * f$sigma^2; list(component = "cond", group = names(rs)[q], terms = vec(colnames(V)), sd = vec(sqrt(diag(V))), corr = mat(cov2cor(V))) })
  if (!is.null(f$modelStruct$corStruct)) o$corStruct <- list(class = class(f$modelStruct$corStruct)[1], coef = vec(coef(f$modelStruct$corStruct, unconstrained = FALSE)))
  re <- ranef(f); o$ranef <- ranef_json(setNames(list(as.data.frame(re)), names(f$groups)[1])); o$pql_iterations <- f$pql_iter; o$logLik <- NA
  o$note_se <- "estimates and SEs: PQL iterated to convergence (1e-14); *_default: MASS's own stopping rule (1e-6) and default lme control; SEs as MASS prints them (lme's ML standard errors scaled by sqrt(N/(N-p)) in summary())"
  c(o, extra)
}
pql_tight <- function(fixed, random, family, d, correlation, ctl) {
  fit0 <- glm(fixed, family, d); w <- fit0$prior.weights; eta <- fit0$linear.predictors; off <- fit0$offset; if (is.null(off)) off <- 0
  zz <- eta + fit0$residuals - off; wz <- fit0$weights; d$zz <- zz; d$invwt <- 1 / wz; fx <- update(fixed, zz ~ .); ff <- fixed; fx <- fixed; fx[[2]] <- quote(zz)
  ## offset() terms are removed from the working formula (already in zz)
  tl <- attr(terms(fx), "term.labels"); it <- attr(terms(fx), "intercept"); fx <- reformulate(if (length(tl)) tl else "1", "zz", intercept = as.logical(it))
  for (i in 1:300) {
    cl <- list(quote(lme), fixed = fx, random = random, data = quote(d), method = "ML", weights = quote(varFixed(~invwt)), control = ctl); if (!is.null(correlation)) cl$correlation <- correlation
    fit <- eval(as.call(cl)); etaold <- eta; eta <- fitted(fit) + off
    if (sum((eta - etaold)^2) < 1e-14 * sum(eta^2)) break
    mu <- family$linkinv(eta); me <- family$mu.eta(eta); d$zz <- eta + (fit0$y - mu) / me - off; wz <- w * me^2 / family$variance(mu); d$invwt <- 1 / wz
  }
  fit$pql_iter <- i; fit
}
#@ pql_bacteria
golden("pql_bacteria", pql("bacteria, PQL", "bacteria", y ~ trt + I(week > 2), ~ 1 | ID, binomial()))
#@ pql_epil
golden("pql_epil", pql("epil, PQL Poisson", "epil", y ~ lbase * trt + lage + V4, ~ 1 | subject, poisson()))
#@ pql_mmmec
golden("pql_mmmec", pql("Mmmec, PQL Poisson with offset", "Mmmec", deaths ~ uvb + offset(log(expected)), ~ 1 | nation, poisson()))
