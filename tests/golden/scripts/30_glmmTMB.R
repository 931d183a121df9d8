# 30_glmmTMB.R -- gaussian models by glmmTMB
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
source(file.path(ROOT, "scripts", "common_tmb.R"))
#@ tmb_sleep_reml
golden("tmb_sleep_reml", tmb("sleepstudy by glmmTMB, REML", "sleepstudy", Reaction ~ Days + (Days | Subject), REML = TRUE))
#@ tmb_sleep_diag_ml
golden("tmb_sleep_diag_ml", tmb("sleepstudy, diag()", "sleepstudy", Reaction ~ Days + diag(Days | Subject)))
#@ tmb_rankdef
golden("tmb_rankdef", tmb("rank-deficient fixed effects", "sim_crossed", y ~ x1 + x2 + x3 + f + (1 | a) + (1 | b)))
suppressMessages({library(emmeans)})
base <- function(title, data, formula, family, sections) c(list(title = title, kind = "postfit", data = data, formula = fm(formula), family = family, package = "glmmTMB", version = pv("glmmTMB"), method = "ML (Laplace)", packages = list(glmmTMB = pv("glmmTMB"), emmeans = pv("emmeans"), car = pv("car"))), sections)
fitt <- function(formula, d, ...) { environment(formula) <- globalenv(); assign("d", d, globalenv()); eval(as.call(c(list(quote(glmmTMB), formula = formula, data = quote(d), control = quote(tc())), as.list(substitute(list(...)))[-1])), globalenv()) }
emm_rows <- function(e, ...) rows(as.data.frame(summary(e, infer = TRUE, ...)))
tr <- function(e, what = "") tryCatch(e, error = function(x) { note(what, ": ", conditionMessage(x)); NULL })
ci_rows <- function(ci) trows(setNames(as.data.frame(ci), gsub(" %", "", gsub("2.5 %", "lower", gsub("97.5 %", "upper", colnames(ci), fixed = TRUE), fixed = TRUE))))
#@ tmbpost_sleep_ddf
golden("tmbpost_sleep_ddf", { d <- load_data("sleepstudy"); f <- Reaction ~ Days + (Days | Subject); m <- fitt(f, d, REML = TRUE); s <- tr(coef(summary(m, ddf = "satterthwaite"))$cond, "satt"); k <- tr(coef(summary(m, ddf = "kenward-roger"))$cond, "KR"); V <- tr(sandwich::sandwich(m), "sandwich"); hc <- tr(vcovHC(m), "vcovHC")
  base("sleepstudy by glmmTMB REML: Satterthwaite and Kenward-Roger df, sandwich", "sleepstudy", f, "gaussian, REML", list(logLik = as.numeric(logLik(m)), satterthwaite = if (!is.null(s)) trows(as.data.frame(s)), kenward_roger = if (!is.null(k)) trows(as.data.frame(k)), vcovHC = if (!is.null(hc)) lapply(if (is.list(hc)) hc else list(full = hc), function(v) if (!is.null(v)) vcov_json(as.matrix(v))))) })
