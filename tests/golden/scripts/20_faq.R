# 20_faq.R -- numbers printed in the GLMM FAQ next to what R gives
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages(library(lme4))
#@ faq_sleepstudy_lrt
golden("faq_sleepstudy_lrt", { d <- load_data("sleepstudy"); assign("d", d, globalenv()); mk <- function(f) eval(as.call(list(quote(lme4::lmer), f, data = quote(d), REML = FALSE, control = quote(lc()))), globalenv()); m2 <- mk(Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)); m1 <- mk(Reaction ~ Days + (1 | Subject)); m0 <- lm(Reaction ~ Days, d); a <- as.data.frame(anova(m2, m1, m0))
  list(title = "GLMM FAQ: anova(m2, m1, m0) of sleepstudy", kind = "faq", data = "sleepstudy", formula = "m2: Reaction ~ Days + (1 | Subject) + (0 + Days | Subject); m1: Reaction ~ Days + (1 | Subject); m0: Reaction ~ Days", family = "gaussian", link = "identity", package = "lme4", version = pv("lme4"), method = "ML", printed = list(AIC = list(m0 = 1906.3, m1 = 1802.1, m2 = 1762.0), chisq = list(m1 = 106.214, m2 = 42.075)), computed = trows(a, "model")) })
