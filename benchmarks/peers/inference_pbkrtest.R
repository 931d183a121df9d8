# lmerTest's and pbkrtest's small-sample tests, for ../inference.py: a folder with the data in, one JSON object out, task
# -> seconds.
suppressMessages({library(lmerTest); library(pbkrtest); library(jsonlite)})
seconds <- function(task) { start <- proc.time(); suppressMessages(suppressWarnings(task)); sum((proc.time() - start)[1:2]) }
median_of <- function(task) { first <- seconds(task()); if (first > 2) first else median(replicate(5, seconds(task()))) }
folder <- commandArgs(TRUE)[1]
crossed <- read.csv(file.path(folder, "crossed.csv"), stringsAsFactors = TRUE)
nested <- read.csv(file.path(folder, "nested.csv"), stringsAsFactors = TRUE)
models <- list(
  "sleepstudy" = list(large = quote(lmer(Reaction ~ Days + (Days | Subject), sleepstudy)),
                      small = quote(lmer(Reaction ~ 1 + (Days | Subject), sleepstudy)), heavy = TRUE),
  "crossed 2000" = list(large = quote(lmer(y ~ x + f + (1 | a) + (1 | b), crossed)),
                        small = quote(lmer(y ~ x + (1 | a) + (1 | b), crossed)), heavy = TRUE),
  "nested 10000" = list(large = quote(lmer(y ~ x + f + (x | a), nested)),
                        small = quote(lmer(y ~ x + (x | a), nested)), heavy = FALSE))
out <- list()
for (name in names(models)) {
  m1 <- eval(models[[name]]$large); m0 <- eval(models[[name]]$small)
  out[[paste("satterthwaite", name)]] <- median_of(function() { m <- as_lmerModLmerTest(as(m1, "lmerMod")); summary(m) })
  # pbkrtest's matrices have rows x rows entries: 10,000 rows ask for gigabytes
  if (models[[name]]$heavy) {
    out[[paste("kr covariance", name)]] <- median_of(function() vcovAdj(m1))
    out[[paste("kr test", name)]] <- median_of(function() KRmodcomp(m1, m0))
    found <- KRmodcomp(m1, m0)$test["Ftest", ]
    message(name, ": F ", format(found$stat, digits = 10), " ddf ", format(found$ddf, digits = 10))
  }
}
cat(toJSON(out, auto_unbox = TRUE, digits = 8), "\n", sep = "")
