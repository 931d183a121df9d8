# 40_nlme_lme.R -- nlme::lme, independent residuals
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
source(file.path(ROOT, "scripts", "common_nlme.R"))
#@ nlme_orthodont_int
golden("nlme_orthodont_int", nl("Orthodont, random intercept", "Orthodont", lme(distance ~ age * Sex, data = d, random = ~1 | Subject), "Subject"))
#@ nlme_orthodont_slope_ml
golden("nlme_orthodont_slope_ml", nl("Orthodont, random slope, ML", "Orthodont", lme(distance ~ age * Sex, data = d, random = ~age | Subject, method = "ML"), "Subject"))
#@ nlme_ovary_diag
golden("nlme_ovary_diag", nl("Ovary, pdDiag random effects", "Ovary", lme(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), data = d, random = list(Mare = pdDiag(~sin(2 * pi * Time)))), "Mare"))
#@ nlme_bodyweight
golden("nlme_bodyweight", nl("BodyWeight, random line", "BodyWeight", lme(weight ~ Time * Diet, data = d, random = ~Time | Rat), "Rat"))
#@ nlme_machines_nested
golden("nlme_machines_nested", nl("Machines, nested", "Machines", lme(score ~ Machine, data = d, random = ~1 | Worker/Machine), c("Worker", "Machine")))
#@ nlme_machines_us
golden("nlme_machines_us", nl("Machines, unstructured", "Machines", lme(score ~ Machine, data = d, random = ~Machine - 1 | Worker), "Worker"))
#@ nlme_oats_nested
golden("nlme_oats_nested", nl("Oats, split plot", "Oats", lme(yield ~ ordered(nitro) * Variety, data = d, random = ~1 | Block/Variety), c("Block", "Variety")))
#@ nlme_pixel
golden("nlme_pixel", nl("Pixel, two levels with different structures", "Pixel", lme(pixel ~ day + I(day^2), data = d, random = list(Dog = ~day, Side = ~1)), c("Dog", "Side")))
#@ nlme_wafer_diag
golden("nlme_wafer_diag", nl("Wafer, two levels of pdDiag", "Wafer", lme(current ~ voltage + I(voltage^2), data = d, random = list(Wafer = pdDiag(~voltage), Site = pdDiag(~voltage)), method = "ML"), c("Wafer", "Site")))
