# 60_genetic.R -- pedigreemm, metafor, LMMsolver, mbest
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages(library(lme4))
pedi <- function() { suppressMessages(library(pedigreemm)); p <- load_data("milk_pedigree"); pedigree(sire = as.integer(p$sire), dam = as.integer(p$dam), label = p$id) }
#@ ped_milk
golden("ped_milk", { P <- pedi(); d <- load_data("milk"); d$sdMilk <- d$milk / sd(d$milk); f <- pedigreemm(sdMilk ~ lact + log(dim) + (1 | id) + (1 | herd), data = d, pedigree = list(id = P), control = lmerControl(optimizer = "nloptwrap", optCtrl = list(xtol_abs = 1e-9, ftol_abs = 1e-10, maxeval = 5000)))
  o <- extract_mer(f, "milk, animal model with pedigree", "milk", "REML", call = "pedigreemm(milk/sd(milk) ~ lact + log(dim) + (1|id) + (1|herd), milk, pedigree = list(id = pedCows))", condvar = FALSE, resid = FALSE); o$package <- "pedigreemm"; o$version <- pv("pedigreemm"); o$pedigree_data <- "milk_pedigree"; o$gradient <- NULL; o$grad_norm <- NA; o$control <- list(optimizer = "nloptwrap BOBYQA, ftol_abs 1e-10"); o$data_prep <- "d$sdMilk <- d$milk / sd(d$milk)"
  vc <- as.data.frame(lme4::VarCorr(f)); o$heritability <- vc$vcov[vc$grp == "id"] / sum(vc$vcov); o$optimum_gap <- NULL; o })
#@ ped_relationship
golden("ped_relationship", { suppressMessages(library(pedigreemm)); p <- pedigree(sire = c(NA, NA, 1, 1, 4, 5, 5), dam = c(NA, NA, 2, NA, 3, 2, 6), label = 1:7); A <- as.matrix(getA(p)); T <- as.matrix(as(p, "sparseMatrix")); list(title = "relationship matrix of a small pedigree with inbreeding", data = NA, formula = NA, family = NA, link = NA, package = "pedigreemm", version = pv("pedigreemm"), method = "deterministic", sire = vec(c(NA, NA, 1, 1, 4, 5, 5)), dam = vec(c(NA, NA, 2, NA, 3, 2, 6)), A = mat(A), Dmat = vec(Dmat(p)), inbreeding = vec(inbreeding(p)), Tinv = mat(T), relfactor = mat(as.matrix(relfactor(p))), Ainv = mat(solve(A))) })
