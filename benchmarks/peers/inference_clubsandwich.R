# clubSandwich's CR2 with Satterthwaite tests, for ../inference.py: prints one JSON object, task -> processor seconds.
suppressMessages({library(lme4); library(clubSandwich); library(jsonlite)})
seconds <- function(task) { start <- proc.time(); suppressMessages(suppressWarnings(task)); sum((proc.time() - start)[1:2]) }
sleep <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
set.seed(1)
n <- 6000; g <- rep(1:300, each = 20); x <- rnorm(n)
many <- data.frame(x, f = factor(sample(4, n, TRUE)), g = factor(g), y = x + rnorm(300)[g] + rnorm(300)[g] * x + rnorm(n))
large <- lmer(y ~ x + f + (x | g), many)
tested <- function(m) seconds(coef_test(m, vcov = vcovCR(m, type = "CR2"), test = "Satterthwaite"))
cat(toJSON(list("CR2 sleepstudy" = tested(sleep), "CR2 300 clusters of 20" = tested(large)), auto_unbox = TRUE, digits = 8), "\n", sep = "")
