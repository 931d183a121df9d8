# lme4's profiles and parametric bootstraps, for ../inference.py: prints one JSON object, task -> processor seconds.
suppressMessages({library(lme4); library(jsonlite)})
seconds <- function(task) { start <- proc.time(); suppressMessages(suppressWarnings(task)); sum((proc.time() - start)[1:2]) }
sleep <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
penicillin <- lmer(diameter ~ 1 + (1 | plate) + (1 | sample), Penicillin)
cbpp_fit <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial)
figures <- function(m) c(fixef(m), as.data.frame(VarCorr(m))$sdcor)
boot <- function(m, run, wanted) seconds(bootMer(m, figures, nsim = run, seed = 1)) * wanted / run
out <- list(
  "profile sleepstudy" = seconds(confint(sleep, method = "profile", quiet = TRUE)),
  "profile penicillin" = seconds(confint(penicillin, method = "profile", quiet = TRUE)),
  "profile cbpp" = seconds(confint(cbpp_fit, method = "profile", quiet = TRUE)),
  "bootstrap sleepstudy 10000" = boot(sleep, 100, 10000),
  "bootstrap cbpp 1000" = boot(cbpp_fit, 20, 1000))
cat(toJSON(out, auto_unbox = TRUE, digits = 8), "\n", sep = "")
