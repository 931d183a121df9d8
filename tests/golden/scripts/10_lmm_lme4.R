# 10_lmm_lme4.R -- linear mixed models, lme4::lmer
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
suppressMessages(library(lme4))
#' fit one lmer with the tight optimizer and extract everything
lmm <- function(title, data, formula, REML = TRUE, weights = NULL, offset = NULL, opt = list(), contrasts = NULL, extra = list(), n_re = 6) {
  d <- load_data(data); environment(formula) <- environment()
  cl <- list(quote(lme4::lmer), formula, data = quote(d), REML = REML, control = quote(lc(opt = opt)))
  if (!is.null(weights)) { d$.w <- d[[weights]]; cl$weights <- quote(.w); extra$weights_column <- weights }
  if (!is.null(offset)) { d$.o <- d[[offset]]; cl$offset <- quote(.o); extra$offset_column <- offset }
  if (!is.null(contrasts)) { cl$contrasts <- contrasts; extra$contrasts_arg <- contrasts }
  fit <- eval(as.call(cl))
  call <- paste0("lmer(", fm(formula), ", ", data, ", REML = ", REML, if (!is.null(weights)) paste0(", weights = ", weights), if (!is.null(offset)) paste0(", offset = ", offset), ")")
  extract_mer(fit, title, data, if (REML) "REML" else "ML", call = call, extra = extra, n_re = n_re)
}
#@ lmm_dyestuff_reml
golden("lmm_dyestuff_reml", lmm("Dyestuff, one variance component", "Dyestuff", Yield ~ 1 + (1 | Batch)))
#@ lmm_dyestuff_ml
golden("lmm_dyestuff_ml", lmm("Dyestuff, ML", "Dyestuff", Yield ~ 1 + (1 | Batch), FALSE))
#@ lmm_dyestuff2_reml
golden("lmm_dyestuff2_reml", lmm("Dyestuff2, singular fit (theta = 0)", "Dyestuff2", Yield ~ 1 + (1 | Batch)))
#@ lmm_penicillin_reml
golden("lmm_penicillin_reml", lmm("Penicillin, crossed", "Penicillin", diameter ~ 1 + (1 | plate) + (1 | sample)))
#@ lmm_penicillin_ml
golden("lmm_penicillin_ml", lmm("Penicillin, crossed, ML", "Penicillin", diameter ~ 1 + (1 | plate) + (1 | sample), FALSE))
#@ lmm_pastes_reml
golden("lmm_pastes_reml", lmm("Pastes, nested with /", "Pastes", strength ~ 1 + (1 | batch/cask)))
#@ lmm_sleepstudy_us_ml
golden("lmm_sleepstudy_us_ml", lmm("sleepstudy, correlated slope, ML", "sleepstudy", Reaction ~ Days + (Days | Subject), FALSE))
#@ lmm_sleepstudy_int_ml
golden("lmm_sleepstudy_int_ml", lmm("sleepstudy, random intercept, ML", "sleepstudy", Reaction ~ Days + (1 | Subject), FALSE))
#@ lmm_sleepstudy_slope_only_reml
golden("lmm_sleepstudy_slope_only_reml", lmm("sleepstudy, slope only", "sleepstudy", Reaction ~ Days + (0 + Days | Subject)))
#@ lmm_sleepstudy_log_ml
golden("lmm_sleepstudy_log_ml", lmm("sleepstudy, transformed response, scale() in the fixed part", "sleepstudy", log(Reaction) ~ scale(Days) + (1 | Subject), FALSE))
#@ lmm_cake_reml
golden("lmm_cake_reml", lmm("cake, ordered factor (polynomial contrasts), interaction", "cake", angle ~ recipe * temperature + (1 | recipe:replicate)))
#@ lmm_cake_ml
golden("lmm_cake_ml", lmm("cake, additive with numeric temperature, ML", "cake", angle ~ recipe + temp + (1 | recipe:replicate), FALSE))
#@ lmm_machines_us_reml
golden("lmm_machines_us_reml", lmm("Machines, 3x3 unstructured", "Machines", score ~ Machine + (Machine | Worker)))
#@ lmm_machines_cell_ml
golden("lmm_machines_cell_ml", lmm("Machines, cell-means random effects (0 + Machine | Worker), ML", "Machines", score ~ Machine + (0 + Machine | Worker), FALSE))
#@ lmm_machines_nested_reml
golden("lmm_machines_nested_reml", lmm("Machines, nested intercepts", "Machines", score ~ Machine + (1 | Worker/Machine)))
#@ lmm_oxboys_quad_ml
golden("lmm_oxboys_quad_ml", lmm("Oxboys, quadratic growth, random quadratic, ML", "Oxboys", height ~ age + I(age^2) + (age + I(age^2) | Subject), FALSE))
#@ lmm_orthodont_reml
golden("lmm_orthodont_reml", lmm("Orthodont, age x Sex, random line", "Orthodont", distance ~ age * Sex + (age | Subject)))
#@ lmm_chem97_ml
golden("lmm_chem97_ml", lmm("Chem97, pupils in schools in LEAs, 31022 rows", "Chem97", score ~ gcsecnt + gender + age + (1 | school) + (1 | lea), FALSE))
#@ lmm_scotssec_reml
golden("lmm_scotssec_reml", lmm("ScotsSec, crossed primary x secondary schools", "ScotsSec", attain ~ sex + verbal + (1 | primary) + (1 | second)))
#@ lmm_exam_reml
golden("lmm_exam_reml", lmm("Exam, random slope", "Exam", normexam ~ standLRT + sex + schgend + (standLRT | school)))
#@ lmm_egsingle_ml
golden("lmm_egsingle_ml", lmm("egsingle, three-level growth", "egsingle", math ~ year * lowinc + female + black + hispanic + (year | childid) + (year | schoolid), FALSE))
#@ lmm_pixel_reml
golden("lmm_pixel_reml", lmm("Pixel, Dog slope and Side within Dog", "Pixel", pixel ~ day + I(day^2) + (day | Dog) + (1 | Dog:Side)))
#@ lmm_oats_reml
golden("lmm_oats_reml", lmm("Oats, split plot", "Oats", yield ~ nitro * Variety + (1 | Block/Variety)))
#@ lmm_oats_ml
golden("lmm_oats_ml", lmm("Oats, split plot, factor nitrogen (MASS version), ML", "oats_mass", Y ~ N + V + (1 | B/V), FALSE))
#@ lmm_hsb_reml
golden("lmm_hsb_reml", lmm("High School & Beyond", "Hsb82", mAch ~ meanses * cses + sector * cses + (cses | school)))
#@ lmm_early_reml
golden("lmm_early_reml", lmm("Early childhood intervention", "Early", cog ~ I(age - 1) * trt + (I(age - 1) | id)))
#@ lmm_gcsemv_ml
golden("lmm_gcsemv_ml", lmm("Gcsemv, rows with missing response or covariate dropped, ML", "Gcsemv", written ~ course + gender + (1 | school), FALSE))
#@ lmm_pbib_reml
golden("lmm_pbib_reml", lmm("PBIB, partially balanced incomplete blocks", "PBIB", response ~ Treatment + (1 | Block)))
#@ lmm_incblk_reml
golden("lmm_incblk_reml", lmm("IncBlk, incomplete blocks with covariate x treatment", "IncBlk", y ~ Treatment * x + (1 | Block)))
#@ lmm_hr_reml
golden("lmm_hr_reml", lmm("HR, heart rate under drugs", "HR", HR ~ baseHR + Drug * Time + (Time | Patient)))
#@ lmm_sims_ml
golden("lmm_sims_ml", lmm("SIMS, 190 classes, random slope", "SIMS", Gain ~ Pretot + (Pretot | Class), FALSE))
#@ lmm_milk_crossed_reml
golden("lmm_milk_crossed_reml", lmm("milk, herd and sire crossed, large response scale", "milk", milk ~ factor(lact) + log(dim) + (1 | herd) + (1 | sire)))
#@ lmm_assay_reml
golden("lmm_assay_reml", lmm("Assay, crossed within blocks", "Assay", logDens ~ sample * dilut + (1 | Block) + (1 | Block:sample) + (1 | Block:dilut)))
#@ lmm_john_alpha_reml
golden("lmm_john_alpha_reml", lmm("Alpha design, blocks in replicates", "john_alpha", yield ~ rep + gen + (1 | rep:block)))
#@ lmm_weights_reml
golden("lmm_weights_reml", lmm("prior weights", "sim_crossed", y ~ x1 + x2 + f + (1 | a) + (1 | b), weights = "w"))
#@ lmm_weights_ml
golden("lmm_weights_ml", lmm("prior weights and random slope, ML", "sim_crossed", y ~ x1 + x2 + f + (x1 | a) + (1 | b), FALSE, weights = "w"))
#@ lmm_offset_reml
golden("lmm_offset_reml", lmm("offset argument", "sim_crossed", y ~ x1 + x2 + f + (1 | a) + (1 | b), offset = "off"))
#@ lmm_weights_offset_ml
golden("lmm_weights_offset_ml", lmm("weights and offset() term, ML", "sim_crossed", y ~ x1 + x2 + f + offset(off) + (1 | a) + (1 | b), FALSE, weights = "w"))
#@ lmm_rankdef_reml
golden("lmm_rankdef_reml", lmm("rank-deficient fixed effects (x3 dropped)", "sim_crossed", y ~ x1 + x2 + x3 + f + (1 | a) + (1 | b)))
#@ lmm_missing_reml
golden("lmm_missing_reml", lmm("missing response and covariate rows dropped", "sim_crossed", y_mis ~ x1 + x2_mis + f + (1 | a) + (1 | b)))
#@ lmm_factor_slope_ml
golden("lmm_factor_slope_ml", lmm("factor random slope, unstructured 3x3 (may be singular)", "sim_crossed", y ~ x1 + f + (f | a) + (1 | b), FALSE, weights = "w"))
#@ lmm_noint_ml
golden("lmm_noint_ml", lmm("no fixed intercept, cell means", "sim_crossed", y ~ 0 + f + x1:f + (1 | a) + (1 | b) + (1 | a:b), FALSE))
