# common.R -- helpers shared by every script of the golden references.
#
# A script is a preamble plus independent blocks
#     #@ model_id
#     golden("model_id", { ... ; <list> })
# golden() evaluates the block, catches errors, records warnings, and writes
# models/<model_id>.json.  All data are read back from data/*.csv with
# load_data(), so what was fitted is exactly what the CSV holds.
#
# Environment: GOLDEN_ROOT  root folder that holds data/ models/ scripts/
#              GOLDEN_ONLY  optional comma-separated ids: run only these

suppressMessages({library(jsonlite); library(numDeriv)})
options(stringsAsFactors = FALSE, digits = 15, warn = 1)
ROOT <- Sys.getenv("GOLDEN_ROOT", ".")
ONLY <- Filter(nzchar, strsplit(Sys.getenv("GOLDEN_ONLY"), ",")[[1]])
SKIP <- Filter(nzchar, strsplit(Sys.getenv("GOLDEN_SKIP"), ",")[[1]])   # leave these out of this run
SCHEMA_VERSION <- 1L
`%||%` <- function(x, y) if (is.null(x)) y else x

## ------------------------------------------------------------------ data ----
.schema <- NULL
schema <- function() {
  if (is.null(.schema))
    .schema <<- fromJSON(file.path(ROOT, "data", "schema.json"), simplifyVector = FALSE)
  .schema
}
#' Read a dataset exactly as the Python tests will: CSV + schema.json
load_data <- function(name) {
  sc <- schema()[[name]]; if (is.null(sc)) stop("no dataset ", name)
  f <- file.path(ROOT, "data", sc$file)
  d <- read.csv(if (grepl("gz$", f)) gzfile(f) else f, check.names = FALSE,
                colClasses = "character", na.strings = "NA")
  for (cn in names(sc$columns)) {
    c <- sc$columns[[cn]]
    d[[cn]] <- switch(c$type,
      factor  = factor(d[[cn]], levels = unlist(c$levels)),
      ordered = factor(d[[cn]], levels = unlist(c$levels), ordered = TRUE),
      integer = as.integer(d[[cn]]),
      number  = as.numeric(d[[cn]]),
      logical = as.logical(d[[cn]]),
      d[[cn]])
  }
  d
}

## ------------------------------------------------------------------ JSON ----
#' always an array in JSON, never unboxed; names dropped
vec <- function(x) if (is.null(x)) NULL else I(as.vector(unname(x)))
#' matrix -> array of rows
mat <- function(x) {
  if (is.null(x)) return(NULL)
  x <- as.matrix(x); lapply(seq_len(nrow(x)), function(i) I(as.vector(unname(x[i, ]))))
}
#' named numeric vector -> JSON object
obj <- function(x) if (is.null(x)) NULL else as.list(x)
#' data frame -> array of row objects (numbers stay numbers)
rows <- function(d) {
  if (is.null(d)) return(NULL)
  d <- as.data.frame(d, optional = TRUE)
  lapply(seq_len(nrow(d)), function(i) {
    r <- lapply(d, function(col) { v <- col[[i]]; if (is.factor(v)) as.character(v) else v })
    r
  })
}
#' data frame with meaningful row names -> rows with a leading "term"
trows <- function(d, key = "term") {
  d <- as.data.frame(d, optional = TRUE); rows(cbind(setNames(data.frame(rownames(d)), key), d))
}
sanitize <- function(x) {
  if (is.null(x)) return(x)
  if (is.list(x)) { a <- attributes(x); x[] <- lapply(x, sanitize); x <- x[TRUE]; return(x) }
  asis <- inherits(x, "AsIs")
  if (is.numeric(x)) { x <- as.vector(x); x[!is.finite(x)] <- NA }
  else if (is.factor(x)) x <- as.character(x)
  else if (is.language(x)) x <- paste(deparse(x, 500), collapse = " ")
  if (asis) I(x) else x
}
write_golden <- function(x, id) {
  f <- file.path(ROOT, "models", paste0(id, ".json"))
  x <- sanitize(x)
  txt <- toJSON(x, auto_unbox = TRUE, digits = NA, na = "null", null = "null", pretty = 1)
  writeLines(txt, f, useBytes = TRUE)
}

## ------------------------------------------------------------ driver --------
.notes <- character()
note <- function(...) { .notes <<- c(.notes, paste0(...)); invisible() }
golden <- function(id, expr) {
  if (length(ONLY) && !(id %in% ONLY)) return(invisible())
  if (id %in% SKIP) return(invisible())
  .notes <<- character(); w <- character(); t0 <- proc.time()[3]
  ex <- substitute(expr); env <- new.env(parent = globalenv())
  r <- tryCatch(withCallingHandlers(eval(ex, env),
         warning = function(c) { w <<- c(w, conditionMessage(c)); invokeRestart("muffleWarning") },
         message = function(c) invokeRestart("muffleMessage")),
       error = function(e) structure(list(msg = conditionMessage(e), call = deparse(conditionCall(e))[1]), class = "goldfail"))
  el <- proc.time()[3] - t0
  if (inherits(r, "goldfail")) {
    cat(sprintf("FAIL %-44s %6.1fs  %s [%s]\n", id, el, r$msg, r$call)); return(invisible())
  }
  head <- list(schema_version = SCHEMA_VERSION, id = id)
  r <- c(head, r)
  if (length(w)) r$warnings <- vec(unique(w))
  if (length(.notes)) r$notes <- vec(.notes)
  r$r_version <- as.character(getRversion())
  write_golden(r, id)
  cat(sprintf("ok   %-44s %6.1fs  logLik %s  grad %s %s\n", id, el,
      format(r$logLik %||% NA, digits = 12), format(r$grad_norm %||% NA, digits = 2),
      if (length(w)) paste("WARN:", substr(paste(unique(w), collapse = " | "), 1, 150)) else ""))
  invisible(r)
}
pv <- function(p) as.character(packageVersion(p))
fm <- function(f) paste(deparse(f, 500L), collapse = " ")

## --------------------------------------------------- shared extractors ------
#' coefficient table -> array; b, se vectors; df NULL => normal or none
coef_rows <- function(b, se, df = NULL, p = NULL, component = "cond", stat = NULL, test = c("z", "t", "none"), extra = NULL) {
  test <- match.arg(test)
  stat <- stat %||% (b / se)
  if (is.null(p) && test == "z") p <- 2 * pnorm(-abs(stat))
  if (is.null(p) && test == "t" && !is.null(df)) p <- 2 * pt(-abs(stat), df)
  lapply(seq_along(b), function(i) {
    r <- list(component = component, term = names(b)[i], estimate = b[[i]], se = se[[i]],
              statistic = stat[[i]], df = if (is.null(df)) NA else df[[i]],
              p = if (is.null(p)) NA else p[[i]])
    if (!is.null(extra)) for (n in names(extra)) r[[n]] <- extra[[n]][[i]]
    r
  })
}
vcov_json <- function(V) list(terms = vec(colnames(V) %||% seq_len(ncol(V))), matrix = mat(V))
hd <- function(x, n = 6) vec(head(as.numeric(x), n))
info <- function(fit) {
  ll <- logLik(fit)
  list(nobs = nobs(fit), npar = attr(ll, "df"), logLik = as.numeric(ll), AIC = AIC(fit), BIC = BIC(fit))
}
contrast_info <- function(fr) {
  o <- list()
  for (n in names(fr)) if (is.factor(fr[[n]])) o[[n]] <- if (is.ordered(fr[[n]])) "contr.poly" else "contr.treatment"
  o
}

## ------------------------------------------------ exact-optimum helpers -----
#' Newton polish of a smooth objective on the free coordinates, with Richardson
#' (numDeriv) derivatives.  Returns list(par, fval, grad, hess, free)
newton_polish <- function(fn, par, lower = rep(-Inf, length(par)), maxit = 6, gtol = 1e-8, gr = NULL, bound_tol = 1e-4) {
  f0 <- fn(par)
  ## snap variance parameters that sit at their lower bound
  for (i in seq_along(par)) if (is.finite(lower[i]) && par[i] - lower[i] < bound_tol) {
    p2 <- par; p2[i] <- lower[i]; f2 <- fn(p2)
    if (is.finite(f2) && f2 <= f0 + 1e-9) { par <- p2; f0 <- f2 }
  }
  free <- which(!(is.finite(lower) & par <= lower + 1e-12))
  if (!length(free)) return(list(par = par, fval = f0, grad = numeric(), hess = matrix(0, 0, 0), free = free))
  ff <- function(z) { q <- par; q[free] <- z; fn(q) }
  gg <- if (is.null(gr)) function(z) numDeriv::grad(ff, z, method.args = list(eps = 1e-4, d = 1e-3, r = 6))
        else function(z) { q <- par; q[free] <- z; as.numeric(gr(q))[free] }
  hh <- if (is.null(gr)) function(z) numDeriv::hessian(ff, z, method.args = list(eps = 1e-4, d = 1e-2, r = 6))
        else function(z) { h <- numDeriv::jacobian(gg, z); (h + t(h)) / 2 }
  z <- par[free]; g <- gg(z); H <- hh(z)
  for (it in seq_len(maxit)) {
    if (max(abs(g)) < gtol) break
    e <- eigen((H + t(H)) / 2, symmetric = TRUE); keep <- e$values > max(abs(e$values)) * 1e-9
    st <- -as.vector(e$vectors[, keep, drop = FALSE] %*% (crossprod(e$vectors[, keep, drop = FALSE], g) / e$values[keep]))
    s <- 1; ok <- FALSE
    while (s > 1e-4) { z2 <- z + s * st; f2 <- tryCatch(ff(z2), error = function(e) Inf)
      low <- lower[free]; if (all(z2 >= low) && is.finite(f2) && f2 <= f0 + 1e-9 * max(1, abs(f0)) * 1e-3) { ok <- TRUE; break }; s <- s / 2 }
    if (!ok) break
    g2 <- gg(z2)
    if (max(abs(g2)) >= max(abs(g)) && f2 >= f0) break
    z <- z2; f0 <- f2; g <- g2
    if (max(abs(g)) > 1e-3) H <- hh(z)
  }
  par[free] <- z; fn(par)
  list(par = par, fval = f0, grad = g, hess = H, free = free)
}

## lme4: optimizer used for every (g)lmer fit.  BOBYQA (nloptr), BOBYQA (minqa)
## from its end, then Newton with Richardson derivatives.
.gold_last <- new.env()
goldopt <- function(fn, par, lower = rep(-Inf, length(par)), upper = rep(Inf, length(par)), control = list()) {
  cnt <- 0; fc <- function(x) { cnt <<- cnt + 1; fn(x) }
  one <- function(p0) {
    o1 <- lme4::nloptwrap(p0, fc, lower, upper, control = list(xtol_abs = 1e-9, ftol_abs = 1e-12, xtol_rel = 0, ftol_rel = 0, maxeval = 20000))
    best <- o1$par; fb <- o1$fval
    if (!isTRUE(control$fast)) {
      o2 <- tryCatch(minqa::bobyqa(pmax(pmin(best, upper), lower), fc, lower, upper, control = list(rhobeg = min(0.02, 0.2 * max(abs(p0), 1)), rhoend = 1e-9, maxfun = 20000)), error = function(e) NULL)
      if (!is.null(o2) && o2$fval < fb) { best <- o2$par; fb <- o2$fval }
    }
    list(par = as.numeric(best), fval = fb)
  }
  b <- one(par)
  ## a variance at its bound: look from other starting points too
  if (any(is.finite(lower) & b$par < 1e-4) && !isTRUE(control$fast)) for (k in c(0.3, 3)) {
    p0 <- par; i <- is.finite(lower); p0[i] <- par[i] * k; b2 <- tryCatch(one(p0), error = function(e) NULL)
    if (!is.null(b2) && b2$fval < b$fval - 1e-9) b <- b2
  }
  best <- b$par
  .gold_last$grad <- NULL; .gold_last$hess <- NULL; .gold_last$free <- NULL
  if (!isTRUE(control$nopolish)) {
    np <- newton_polish(fc, best, lower, maxit = control$maxit %||% 6)
    best <- np$par; .gold_last$grad <- np$grad; .gold_last$free <- np$free; .gold_last$hess <- np$hess
  }
  .gold_last$par <- best; .gold_last$neval <- cnt
  v <- fc(best)
  list(par = best, fval = v, feval = cnt, convergence = 0L, conv = 0L, message = "goldopt")
}
#' control for lmer: never stop on checks, keep lme4's own derivative check off
lc <- function(..., opt = list()) lme4::lmerControl(optimizer = "goldopt", optCtrl = opt, calc.derivs = FALSE, ...)
gc_ <- function(..., opt = list(), tolPwrss = 1e-13) lme4::glmerControl(optimizer = "goldopt", optCtrl = opt, calc.derivs = TRUE, tolPwrss = tolPwrss, ...)
CONTROL_LMER <- list(optimizer = "BOBYQA(nloptr, ftol_abs 1e-12) + BOBYQA(minqa, rhoend 1e-9) + Newton(Richardson gradient)", grad_target = 1e-8)

ranef_json <- function(re, cv = NULL, n = 6) {
  o <- list()
  for (g in names(re)) {
    d <- re[[g]]; k <- min(n, nrow(d))
    e <- list(nlevels = nrow(d), levels = vec(rownames(d)[seq_len(k)]), terms = vec(colnames(d)),
              estimate = mat(as.matrix(d)[seq_len(k), , drop = FALSE]))
    pvv <- if (!is.null(cv)) cv[[g]] else attr(d, "postVar")
    if (!is.null(pvv)) {
      ## lme4 gives an array, or a list of arrays when a factor has several terms
      sds <- function(a, i) sqrt(diag(as.matrix(a[, , i])))
      e$condsd <- if (is.list(pvv)) lapply(seq_len(k), function(i) I(unlist(lapply(pvv, function(a) unname(sds(a, i))))))
                  else lapply(seq_len(k), function(i) I(unname(sds(pvv, i))))
    }
    o[[g]] <- e
  }
  o
}
varcorr_json <- function(vc, component = "cond") {
  unname(lapply(seq_along(vc), function(i) {
    v <- vc[[i]]
    list(component = component, group = names(vc)[i], terms = vec(colnames(v)),
         sd = vec(attr(v, "stddev")), corr = mat(attr(v, "correlation")))
  }))
}
resid_json <- function(fit, types = c("response", "pearson", "deviance"), n = 6) {
  o <- list(); for (t in types) { r <- tryCatch(residuals(fit, type = t), error = function(e) NULL); if (!is.null(r)) o[[t]] <- hd(r, n) }
  o
}

#' lme4 models (lmer, glmer, nlmer)
extract_mer <- function(fit, title, data, method, call = NULL, n_re = 6, condvar = TRUE, extra = list(), stats = TRUE, resid = TRUE) {
  isg <- lme4::isGLMM(fit); isn <- lme4::isNLMM(fit)
  fam <- if (isg) family(fit) else list(family = "gaussian", link = "identity")
  ll <- logLik(fit); b <- lme4::fixef(fit); V <- as.matrix(vcov(fit)); se <- sqrt(diag(V))
  o <- list(title = title, data = data, formula = fm(formula(fit)), family = fam$family, link = fam$link,
            package = "lme4", version = pv("lme4"), method = method, call = call,
            control = CONTROL_LMER)
  o$nobs <- nobs(fit); o$ngroups <- obj(lme4::ngrps(fit)); o$npar <- attr(ll, "df")
  o$logLik <- as.numeric(ll); o$minus2loglik <- -2 * as.numeric(ll)
  if (!isg) { o$objective <- if (lme4::isREML(fit)) lme4::REMLcrit(fit) else deviance(fit)
    o$objective_name <- if (lme4::isREML(fit)) "REMLcrit" else "deviance" }
  else { o$deviance_conditional <- deviance(fit); o$objective <- as.numeric(fit@devcomp$cmp["dev"]); o$objective_name <- "nAGQ criterion (devfun value)" }
  o$AIC <- AIC(fit); o$BIC <- BIC(fit); o$df_residual <- df.residual(fit)
  o$fixef <- coef_rows(b, se, test = if (isg) "z" else "none")
  if (!isg) for (i in seq_along(o$fixef)) o$fixef[[i]]$statistic_type <- "t"
  dropped <- setdiff(names(suppressMessages(lme4::fixef(fit, add.dropped = TRUE))), names(b))
  if (length(dropped)) o$fixef_dropped <- vec(dropped)
  o$vcov <- vcov_json(V)
  if (isg) { Vr <- suppressWarnings(as.matrix(vcov(fit, use.hessian = FALSE))); o$se_rx <- vec(sqrt(diag(Vr))) }
  o$varcorr <- varcorr_json(lme4::VarCorr(fit)); o$sigma <- sigma(fit)
  th <- lme4::getME(fit, "theta"); o$theta <- vec(th); o$theta_names <- vec(names(th)); o$theta_lower <- vec(lme4::getME(fit, "lower"))
  re <- lme4::ranef(fit, condVar = condvar); o$ranef <- ranef_json(re, n = n_re)
  o$fitted <- hd(tryCatch(fitted(fit), error = function(e) fit@resp$mu)); if (isg) o$linear_predictor <- hd(predict(fit, type = "link"))
  if (resid) o$residuals <- resid_json(fit)
  o$singular <- lme4::isSingular(fit)
  o$grad_norm <- if (length(.gold_last$grad)) max(abs(.gold_last$grad)) else NA
  if (length(.gold_last$grad) && !is.null(.gold_last$hess)) {
    st <- tryCatch(solve(.gold_last$hess, .gold_last$grad), error = function(e) NULL)
    if (!is.null(st)) { o$optimum_gap <- 0.5 * abs(sum(st * .gold_last$grad)); o$newton_step <- max(abs(st)) }
  }
  o$gradient <- vec(.gold_last$grad); o$gradient_of <- "objective w.r.t. the free coordinates of (theta[, beta])"
  o$contrasts <- contrast_info(model.frame(fit))
  c(o, extra)
}
#' accurate SEs for a glmer fit: Hessian of -2logLik in (theta, beta) by Richardson
glmer_exact_vcov <- function(fit) {
  H <- .gold_last$hess; np <- length(.gold_last$par); fr <- .gold_last$free
  nth <- length(lme4::getME(fit, "theta")); b <- lme4::fixef(fit)
  if (is.null(H) || nrow(H) != length(fr) || length(b) + nth != np) return(NULL)
  V <- solve(H / 2); ib <- match(nth + seq_along(b), fr); Vb <- V[ib, ib, drop = FALSE]
  dimnames(Vb) <- list(names(b), names(b)); Vb
}
glmer_json <- function(fit, ..., exact = TRUE) {
  o <- extract_mer(fit, ...)
  Vb <- if (exact) glmer_exact_vcov(fit) else NULL
  if (!is.null(Vb)) {
    se_pkg <- vapply(o$fixef, function(r) r$se, 0)
    o$fixef <- coef_rows(lme4::fixef(fit), sqrt(diag(Vb)), test = "z", extra = list(se_pkg = se_pkg))
    o$vcov <- vcov_json(Vb)
    o$vcov_note <- "vcov and se: inverse of half the Richardson Hessian of the objective in (theta,beta) at the optimum; se_pkg: what lme4 prints (finite differences, delta 1e-4); se_rx: from RX (use.hessian=FALSE)"
  }
  o
}

## ---------------------------------------------- exact profile intervals -----
#' Solve  min_{others} f(par | par_i = v) - f(est) = crit  on both sides of est_i.
#' f is a deviance-scale function; bounds lower/upper.  NA: not reached before the bound.
profile_root <- function(f, est, i, crit, lower, upper, step, tol = 1e-9) {
  f0 <- f(est); oth <- setdiff(seq_along(est), i); last <- est
  prof <- function(v) {
    if (!length(oth)) { q <- est; q[i] <- v; return(f(q) - f0 - crit) }
    g <- function(z) { q <- est; q[i] <- v; q[oth] <- z; r <- tryCatch(f(q), error = function(e) NA); if (is.finite(r)) r else f0 + 1e6 }
    z0 <- pmin(pmax(last[oth], lower[oth]), upper[oth])
    o <- minqa::bobyqa(z0, g, lower[oth], upper[oth], control = list(rhobeg = max(1e-4, min(0.1, 0.1 * min(c(step[oth], 1)))), rhoend = 1e-9 * max(1, min(step[oth])), maxfun = 20000))
    o2 <- nlminb(o$par, g, lower = lower[oth], upper = upper[oth], control = list(rel.tol = 1e-14, x.tol = 1e-12))
    z <- if (o2$objective < o$fval) o2$par else o$par; last[oth] <<- z
    min(o$fval, o2$objective) - f0 - crit
  }
  side <- function(sgn) {
    last <<- est; b <- if (sgn < 0) lower[i] else upper[i]; a <- est[i]; s <- step[i] * 1.5
    repeat { v <- est[i] + sgn * s; hit <- if (sgn < 0) v <= b else v >= b; if (hit) v <- b
      pv <- prof(v); if (pv >= 0) break; if (hit) return(NA); s <- s * 1.5; a <- v }
    last <<- est; uniroot(prof, sort(c(a, v)), tol = tol * max(1, abs(est[i])))$root
  }
  c(side(-1), side(1))
}
#' exact ML profile confidence intervals of an lmer fit (variance parameters and fixed effects)
exact_profile <- function(m, level = 0.95) {
  ml <- if (lme4::isREML(m)) lme4::refitML(m) else m; crit <- qchisq(level, 1)
  dd <- lme4:::devfun2(ml, useSc = TRUE, signames = FALSE); opt <- attr(dd, "optimum"); nv <- length(opt) - length(lme4::fixef(ml)); st <- opt[seq_len(nv)]
  nm <- names(st); th <- lme4::getME(ml, "theta"); lowth <- lme4::getME(ml, "lower")
  iscor <- grepl("^cor_", nm); lo <- ifelse(iscor, -1, 0); up <- ifelse(iscor, 1, Inf); stp <- ifelse(iscor, .2, .2 * abs(st) + 1e-3)
  f <- function(p) dd(p)
  res <- t(vapply(seq_len(nv), function(i) profile_root(f, as.numeric(st), i, crit, lo, up, stp), c(0, 0)))
  ## fixed effects: move column j to the response
  X <- lme4::getME(ml, "X"); y <- lme4::getME(ml, "y"); b <- lme4::fixef(ml); se <- sqrt(diag(as.matrix(vcov(ml)))); fr <- model.frame(ml)
  lf <- list(fr = fr, reTrms = lme4::getME(ml, c("Zt", "theta", "Lind", "Gp", "lower", "Lambdat", "flist", "cnms")))
  base_off <- model.offset(fr); if (is.null(base_off)) base_off <- rep(0, length(y))
  resb <- t(vapply(seq_along(b), function(j) {
    Xj <- X[, -j, drop = FALSE]; if (!ncol(Xj)) Xj <- matrix(0, nrow(X), 0)
    pdev <- function(v, t0) { fr2 <- fr; fr2[["(offset)"]] <- base_off + v * X[, j]; df <- lme4::mkLmerDevfun(fr2, Xj, lf$reTrms, REML = FALSE)
      o <- minqa::bobyqa(t0, df, lower = lowth, upper = rep(Inf, length(t0)), control = list(rhobeg = .02, rhoend = 1e-8, maxfun = 20000)); o }
    d0 <- -2 * as.numeric(logLik(ml)); t0 <- th
    g <- function(v) pdev(v, t0)$fval - d0 - crit
    one <- function(sgn) { s <- 1.5 * se[j]; a <- b[j]; repeat { v <- b[j] + sgn * s; if (g(v) > 0) break; a <- v; s <- s * 1.5 }; uniroot(g, sort(c(a, v)), tol = 1e-9 * max(1, abs(b[j])))$root }
    c(one(-1), one(1)) }, c(0, 0)))
  trows(data.frame(estimate = c(st, b), lower = c(res[, 1], resb[, 1]), upper = c(res[, 2], resb[, 2]), row.names = c(nm, names(b))))
}
