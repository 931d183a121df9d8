# RLRsim's exact restricted test and pbkrtest's bootstrap test, for ../inference.py: JSON, task -> processor seconds.
suppressMessages({library(lme4); library(RLRsim); library(pbkrtest); library(jsonlite)})
seconds <- function(task) { start <- proc.time(); suppressMessages(suppressWarnings(task)); sum((proc.time() - start)[1:2]) }
m <- lmer(Reaction ~ Days + (1 | Subject), sleepstudy)
folder <- commandArgs(TRUE)[1]
fewer <- lmer(Reaction ~ Days + (1 | Subject), read.csv(file.path(folder, "lopsided.csv")))
plain <- update(fewer, REML = FALSE)
groups <- lmer(y ~ x + (1 | g), read.csv(file.path(folder, "groups.csv")))
large <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial)
small <- update(large, . ~ . - period)
out <- list(
  "exact RLRT sleepstudy" = seconds(exactRLRT(m, nsim = 10000, seed = 1)),
  "exact RLRT 126 of sleepstudy" = seconds(exactRLRT(fewer, nsim = 10000, seed = 1)),
  "exact RLRT 200 groups" = seconds(exactRLRT(groups, nsim = 10000, seed = 1)),
  "exact LRT 126 of sleepstudy" = seconds(exactLRT(plain, lm(Reaction ~ Days, model.frame(plain)), nsim = 10000, seed = 1)),
  "bootstrap test cbpp 1000" = seconds(PBmodcomp(large, small, nsim = 20, seed = 1)) * 50)
cat(toJSON(out, auto_unbox = TRUE, digits = 8), "\n", sep = "")
