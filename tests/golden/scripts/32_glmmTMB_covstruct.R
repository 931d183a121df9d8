# 32_glmmTMB_covstruct.R -- covariance structures, REML, priors, maps by glmmTMB
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
source(file.path(ROOT, "scripts", "common_tmb.R"))
pos <- quote({ d$pos <- glmmTMB::numFactor(d$xc, d$yc); d })
#@ tmb_cov_us
golden("tmb_cov_us", tmb("unstructured 5x5 without residual (dispformula ~0)", "sim_visits", y ~ trt * visitf + base + us(visitf + 0 | id), dispformula = ~0))
#@ tmb_cov_us_reml
golden("tmb_cov_us_reml", tmb("unstructured, missing visits, REML (MMRM)", "sim_visits", y_mis ~ trt * visitf + base + us(visitf + 0 | id), dispformula = ~0, REML = TRUE))
#@ tmb_cov_homdiag
golden("tmb_cov_homdiag", tmb("homogeneous diagonal", "sim_visits", y ~ trt + base + (1 | id) + homdiag(visitf + 0 | id), dispformula = ~0))
#@ tmb_cov_cs
golden("tmb_cov_cs", tmb("heterogeneous compound symmetry", "sim_visits", y ~ trt * visitf + base + cs(visitf + 0 | id), dispformula = ~0))
#@ tmb_cov_homtoep
golden("tmb_cov_homtoep", tmb("homogeneous Toeplitz", "sim_visits", y ~ trt * visitf + base + homtoep(visitf + 0 | id), dispformula = ~0))
#@ tmb_cov_hetar1
golden("tmb_cov_hetar1", tmb("heterogeneous AR(1)", "sim_visits", y ~ trt * visitf + base + hetar1(visitf + 0 | id), dispformula = ~0))
#@ tmb_cov_ar1_poisson
golden("tmb_cov_ar1_poisson", tmb("AR(1) process under Poisson", "sim_ar1", count ~ x + ar1(tf + 0 | g), poisson()))
#@ tmb_cov_ou
golden("tmb_cov_ou", tmb("Ornstein-Uhlenbeck, irregular times", "sim_ou", y ~ x + ou(tnum + 0 | g), prep = quote({ d$tnum <- glmmTMB::numFactor(d$time); d })))
#@ tmb_cov_exp
golden("tmb_cov_exp", tmb("spatial exponential", "sim_spatial", y ~ x + exp(pos + 0 | area), prep = pos))
#@ tmb_cov_exp_poisson
golden("tmb_cov_exp_poisson", tmb("spatial exponential under Poisson", "sim_spatial", count ~ x + exp(pos + 0 | area), poisson(), prep = pos))
#@ tmb_cov_rr1
golden("tmb_cov_rr1", tmb("reduced rank, d = 1, Poisson", "sim_multi", count ~ 0 + species + rr(species + 0 | site, d = 1), poisson()))
#@ tmb_cov_rr2
golden("tmb_cov_rr2", tmb("reduced rank, d = 2, Poisson", "sim_multi", count ~ 0 + species + rr(species + 0 | site, d = 2), poisson()))
#@ tmb_cov_mat
golden("tmb_cov_mat", tmb("Matern, smoothness estimated", "sim_spatial", y ~ x + mat(pos + 0 | area), prep = pos))
#@ tmb_cov_propto
golden("tmb_cov_propto", { A <- local({ a <- load_data("sim_phylo_A"); m <- as.matrix(a[-1]); dimnames(m) <- list(a$species, a$species); (m + t(m)) / 2 }); assign("phyloA", A, globalenv())
  tmb("covariance proportional to a known matrix (phylogenetic)", "sim_phylo", y ~ x + propto(0 + species | one, phyloA), extra = list(matrix_data = "sim_phylo_A")) })
#@ tmb_cov_equalto
golden("tmb_cov_equalto", { A <- local({ a <- load_data("sim_phylo_A"); m <- as.matrix(a[-1]); dimnames(m) <- list(a$species, a$species); (m + t(m)) / 2 }); assign("phyloA", A, globalenv())
  tmb("covariance equal to a known matrix", "sim_phylo", y ~ x + equalto(0 + species | one, phyloA), extra = list(matrix_data = "sim_phylo_A")) })
#@ tmb_cov_propto_poisson
golden("tmb_cov_propto_poisson", { A <- local({ a <- load_data("sim_phylo_A"); m <- as.matrix(a[-1]); dimnames(m) <- list(a$species, a$species); (m + t(m)) / 2 }); assign("phyloA", A, globalenv())
  tmb("phylogenetic Poisson", "sim_phylo", count ~ x + propto(0 + species | one, phyloA), poisson(), extra = list(matrix_data = "sim_phylo_A")) })
#@ tmb_sleep_reml
golden("tmb_sleep_reml", tmb("sleepstudy by glmmTMB, REML", "sleepstudy", Reaction ~ Days + (Days | Subject), REML = TRUE))
#@ tmb_sleep_diag_ml
golden("tmb_sleep_diag_ml", tmb("sleepstudy, diag()", "sleepstudy", Reaction ~ Days + diag(Days | Subject)))
#@ tmb_sleep_cs_ml
golden("tmb_sleep_cs_ml", tmb("sleepstudy, cs()", "sleepstudy", Reaction ~ Days + cs(Days | Subject)))
#@ tmb_sleep_ar1_disp0
golden("tmb_sleep_ar1_disp0", tmb("sleepstudy, AR(1) errors, dispformula = ~0", "sleepstudy", Reaction ~ Days + ar1(factor(Days) + 0 | Subject), dispformula = ~0))
#@ tmb_reml_poisson
golden("tmb_reml_poisson", tmb("REML for a Poisson GLMM", "Salamanders", count ~ spp * mined + (1 | site), poisson(), REML = TRUE))
#@ tmb_prior
golden("tmb_prior", tmb("priors on fixed effects and on a random-effect sd (MAP)", "Salamanders", count ~ spp + mined + (1 | site), nbinom2(),
   priors = data.frame(prior = c("normal(0, 1)", "gamma(1, 2.5)"), class = c("fixef", "ranef_sd"), coef = c("", ""))))
#@ tmb_map_theta
golden("tmb_map_theta", tmb("random-effect sd fixed with map/start", "Salamanders", count ~ spp + mined + (1 | site), poisson(), start = list(theta = log(0.5)), map = list(theta = factor(NA))))
#@ tmb_map_equal
golden("tmb_map_equal", tmb("two variances constrained to be equal with map", "Penicillin", diameter ~ 1 + (1 | plate) + (1 | sample), map = list(theta = factor(c(1, 1)))))
#@ tmb_rankdef
golden("tmb_rankdef", tmb("rank-deficient fixed effects", "sim_crossed", y ~ x1 + x2 + x3 + f + (1 | a) + (1 | b)))
