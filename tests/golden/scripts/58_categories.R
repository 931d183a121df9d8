# 58_categories.R -- ordinal models with scale and nominal effects (ordinal), ratios and adjacent categories (VGAM), multinomial logit (nnet)
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages({ library(ordinal); library(VGAM); library(nnet) })
cat_record <- function(title, data, call, package, ll, b, p, link = "logit", ...) c(list(title = title, data = data, call = call, package = package, version = pv(package), link = link, logLik = as.numeric(ll), coef = as.list(b), probs = unname(lapply(seq_len(6), function(i) unname(p[i, ])))), list(...))
clm_record <- function(title, ..., link = "logit") { d <- load_data("wine"); f <- clm(..., data = d, link = link, control = clm.control(gradTol = 1e-12)); p <- predict(f, d[, c("temp", "contact")])$fit
  cat_record(title, "wine", deparse1(f$call), "ordinal", logLik(f), coef(f), p, link) }
#@ cat_clm_scale
golden("cat_clm_scale", clm_record("wine, scale effects", rating ~ temp + contact, scale = ~ temp))
#@ cat_clm_nominal
golden("cat_clm_nominal", clm_record("wine, nominal effects", rating ~ temp, nominal = ~ contact))
#@ cat_clm_both
golden("cat_clm_both", clm_record("wine, scale and nominal effects, cloglog", rating ~ 1, nominal = ~ contact, scale = ~ temp, link = "cloglog"))
vglm_record <- function(title, family, link) { d <- load_data("wine"); d$rating <- factor(d$rating, ordered = TRUE); f <- vglm(rating ~ temp + contact, family, data = d, control = vglm.control(epsilon = 1e-14, maxit = 100))
  cat_record(title, "wine", paste0("vglm(rating ~ temp + contact, ", deparse1(f@call$family), ")"), "VGAM", logLik(f), coef(f), fitted(f), link) }
#@ cat_sratio cat_cratio cat_acat
golden("cat_sratio", vglm_record("stopping ratio", sratio(parallel = TRUE), "logit"))
golden("cat_sratio_cloglog", vglm_record("stopping ratio, cloglog", sratio(link = "clogloglink", parallel = TRUE), "cloglog"))
golden("cat_cratio", vglm_record("continuation ratio", cratio(parallel = TRUE), "logit"))
golden("cat_cratio_probit", vglm_record("continuation ratio, probit", cratio(link = "probitlink", parallel = TRUE), "probit"))
golden("cat_acat", vglm_record("adjacent categories", acat(parallel = TRUE), "logit"))
#@ cat_multinom
golden("cat_multinom", { d <- load_data("VerbAgg"); f <- multinom(resp ~ situ + mode + Anger, d, trace = FALSE, reltol = 1e-15, abstol = 1e-15, maxit = 1000, Hess = TRUE); b <- coef(f)
  cat_record("VerbAgg, three answers", "VerbAgg", "multinom(resp ~ situ + mode + Anger, VerbAgg)", "nnet", logLik(f), setNames(c(t(b)), paste(rep(rownames(b), each = ncol(b)), colnames(b), sep = ".")), fitted(f), se = as.list(c(t(summary(f)$standard.errors)))) })
#@ cat_multinom_counts
golden("cat_multinom_counts", { v <- load_data("VerbAgg"); k <- as.data.frame.matrix(table(interaction(v$Gender, v$btype, v$situ, v$mode, sep = "_", lex.order = TRUE), v$resp)); f <- strsplit(rownames(k), "_")
  d <- data.frame(Gender = sapply(f, `[`, 1), btype = factor(sapply(f, `[`, 2), levels(v$btype)), situ = factor(sapply(f, `[`, 3), levels(v$situ)), mode = factor(sapply(f, `[`, 4), levels(v$mode))); Y <- as.matrix(k)
  m <- multinom(Y ~ Gender + btype + situ + mode, d, trace = FALSE, reltol = 1e-15, abstol = 1e-15, maxit = 1000, Hess = TRUE); b <- coef(m); p <- fitted(m)
  # nnet's own logLik has no multinomial coefficients; this one is that of the distribution of the counts.
  ll <- sum(sapply(seq_len(nrow(Y)), function(i) dmultinom(Y[i, ], prob = p[i, ], log = TRUE)))
  cat_record("VerbAgg, counts of three answers", "VerbAgg", "multinom(cbind(no, perhaps, yes) ~ Gender + btype + situ + mode, counts of VerbAgg)", "nnet", ll, setNames(c(t(b)), paste(rep(rownames(b), each = ncol(b)), colnames(b), sep = ".")), p, se = as.list(c(t(summary(m)$standard.errors))), counts = unname(apply(Y, 1, function(r) unname(r), simplify = FALSE)), cells = rownames(k), deviance = deviance(m), nnet_logLik = as.numeric(logLik(m))) })
