# 31_glmmTMB_families.R -- families, zero inflation, dispersion models by glmmTMB
source(file.path(Sys.getenv("GOLDEN_ROOT", "."), "scripts", "common.R"))
source(file.path(ROOT, "scripts", "common_tmb.R"))
sal <- count ~ spp + mined + (1 | site)
#@ tmb_sal_poisson
golden("tmb_sal_poisson", tmb("Salamanders, Poisson", "Salamanders", count ~ spp * mined + (1 | site), poisson()))
#@ tmb_sal_nb2
golden("tmb_sal_nb2", tmb("Salamanders, NB2", "Salamanders", sal, nbinom2()))
#@ tmb_sal_nb12
golden("tmb_sal_nb12", tmb("Salamanders, NB12 (two-parameter NB)", "Salamanders", sal, nbinom12()))
#@ tmb_sal_zip
golden("tmb_sal_zip", tmb("Salamanders, zero-inflated Poisson with zi formula", "Salamanders", sal, poisson(), ziformula = ~mined))
#@ tmb_sal_zinb2
golden("tmb_sal_zinb2", tmb("Salamanders, zero-inflated NB2", "Salamanders", sal, nbinom2(), ziformula = ~mined))
#@ tmb_sal_hurdle_poisson
golden("tmb_sal_hurdle_poisson", tmb("Salamanders, hurdle truncated Poisson", "Salamanders", sal, truncated_poisson(), ziformula = ~ spp + mined))
#@ tmb_sal_bell
golden("tmb_sal_bell", tmb("Salamanders, Bell distribution", "Salamanders", count ~ mined + (1 | site), bell()))
#@ tmb_owls_nb2
golden("tmb_owls_nb2", tmb("Owls, zero-inflated NB2 with offset", "Owls", SiblingNegotiation ~ FoodTreatment * SexParent + offset(log(BroodSize)) + (1 | Nest), nbinom2(), ziformula = ~1))
#@ tmb_owls_nb1
golden("tmb_owls_nb1", tmb("Owls, zero-inflated NB1 with offset, arrival time", "Owls", SiblingNegotiation ~ FoodTreatment + ArrivalTime + SexParent + offset(log(BroodSize)) + (1 | Nest), nbinom1(), ziformula = ~ FoodTreatment))
#@ tmb_owls_hurdle
golden("tmb_owls_hurdle", tmb("Owls, hurdle with the mean's predictors for the zeros (glmmTMB's vignette)", "Owls", SiblingNegotiation ~ (FoodTreatment + ArrivalTime) * SexParent + BroodSize + (1 | Nest), truncated_nbinom1(), ziformula = ~ (FoodTreatment + ArrivalTime) * SexParent + BroodSize + (1 | Nest)))
#@ tmb_owls_poisson
golden("tmb_owls_poisson", tmb("Owls, zero-inflated Poisson with offset", "Owls", SiblingNegotiation ~ FoodTreatment * SexParent + offset(log(BroodSize)) + (1 | Nest), poisson(), ziformula = ~1))
#@ tmb_epil2
golden("tmb_epil2", tmb("epil2, NB2 with random visit slope (vignette example; slope sd nearly 0, flat correlation)", "epil2", y ~ Base * trt + Age + Visit + (Visit | subject), nbinom2()))
#@ tmb_epil2_int
golden("tmb_epil2_int", tmb("epil2, NB2 with random intercept (same model as glmm_nb_epil)", "epil2", y ~ Base * trt + Age + Visit + (1 | subject), nbinom2()))
#@ tmb_nb2_counts
golden("tmb_nb2_counts", tmb("simulated NB (same model as glmm_nb_counts)", "sim_counts", nb ~ x + (1 | g), nbinom2()))
#@ tmb_tpois
golden("tmb_tpois", tmb("zero-truncated Poisson", "sim_counts", tpois ~ x + (1 | g), truncated_poisson()))
#@ tmb_tnb2
golden("tmb_tnb2", tmb("zero-truncated NB2", "sim_counts", tnb ~ x + (1 | g), truncated_nbinom2()))
#@ tmb_under_compois
golden("tmb_under_compois", tmb("underdispersed counts, COM-Poisson", "sim_counts", under ~ x + (1 | g), compois()))
#@ tmb_under_genpois
golden("tmb_under_genpois", tmb("underdispersed counts, generalized Poisson", "sim_counts", under ~ x + (1 | g), genpois()))
#@ tmb_tcompois
golden("tmb_tcompois", tmb("zero-truncated COM-Poisson", "sim_counts", tpois ~ x + (1 | g), truncated_compois()))
#@ tmb_tgenpois
golden("tmb_tgenpois", tmb("zero-truncated generalized Poisson", "sim_counts", tnb ~ x + (1 | g), truncated_genpois()))
#@ tmb_beta_food
golden("tmb_beta_food", tmb("FoodExpenditure, beta regression, no random effect", "FoodExpenditure", I(food/income) ~ income + persons, beta_family()))
#@ tmb_beta_disp
golden("tmb_beta_disp", tmb("simulated beta with dispersion formula", "sim_beta", y ~ x + (1 | g), beta_family(), dispformula = ~z))
#@ tmb_ordbeta
golden("tmb_ordbeta", tmb("ordered beta", "sim_beta", yord ~ x + (1 | g), ordbeta()))
#@ tmb_betabinomial_cbpp
golden("tmb_betabinomial_cbpp", tmb("cbpp, beta-binomial (herd sd goes to zero: singular)", "cbpp", cbind(incidence, size - incidence) ~ period + (1 | herd), betabinomial()))
#@ tmb_binomial_cbpp
golden("tmb_binomial_cbpp", tmb("cbpp, binomial (same as glmm_cbpp_laplace)", "cbpp", cbind(incidence, size - incidence) ~ period + (1 | herd), binomial()))
#@ tmb_probit
golden("tmb_probit", tmb("binomial, probit", "sim_cont", cbind(k_probit, trials - k_probit) ~ x + (1 | g), binomial("probit")))
#@ tmb_cloglog
golden("tmb_cloglog", tmb("binomial, cloglog, weights = trials", "sim_cont", k_cll/trials ~ x + (1 | g), binomial("cloglog"), weights = "trials"))
#@ tmb_cbpp_cloglog
golden("tmb_cbpp_cloglog", tmb("cbpp, cloglog (glmm_cbpp_cloglog at the maximum of the Laplace likelihood)", "cbpp", cbind(incidence, size - incidence) ~ period + (1 | herd), binomial("cloglog")))
#@ tmb_gamma_log
golden("tmb_gamma_log", tmb("Gamma, log link (glmm_gamma_log with the scale by maximum likelihood)", "sim_cont", y_gamma ~ x + (1 | g), Gamma("log")))
#@ tmb_tweedie
golden("tmb_tweedie", tmb("Tweedie", "sim_tweedie", y ~ x + (1 | g), tweedie()))
#@ tmb_fineroot
golden("tmb_fineroot", tmb("FineRoot, Tweedie (same model as cplm_fineroot)", "FineRoot", RLD ~ Stock * Zone + (1 | Plant), tweedie()))
#@ tmb_lognormal
golden("tmb_lognormal", tmb("lognormal (mean parameterization)", "sim_cont", y_ln ~ x + (1 | g), lognormal()))
#@ tmb_student_fixed_df
golden("tmb_student_fixed_df", tmb("Student t, df fixed at 4", "sim_cont", y_t ~ x + (1 | g), t_family(), start = list(psi = log(4)), map = list(psi = factor(NA))))
#@ tmb_skewnormal
golden("tmb_skewnormal", tmb("skew-normal", "sim_cont", y_skew ~ x + (1 | g), skewnormal(), start = list(psi = 2)))
#@ tmb_gaussian_disp
golden("tmb_gaussian_disp", tmb("Gaussian with dispersion formula (log sd)", "sim_cont", y_het ~ x + (1 | g), gaussian(), dispformula = ~z))
#@ tmb_gaussian_weights
golden("tmb_gaussian_weights", tmb("Gaussian with weights (glmmTMB: likelihood weights)", "sim_cont", y_het ~ x + (1 | g), gaussian(), weights = "w"))
#@ tmb_gaussian_loglink
golden("tmb_gaussian_loglink", tmb("Gaussian, log link", "sim_cont", y_ln ~ x + (1 | g), gaussian("log")))
#@ tmb_disp_re
golden("tmb_disp_re", tmb("random effects in the dispersion model", "sim_disp", y ~ x + (1 | g), gaussian(), dispformula = ~ 1 + (1 | g)))
#@ tmb_zip_longbin
golden("tmb_zip_longbin", tmb("zero-inflated Poisson with random intercept", "sim_longbin", zip ~ time + (1 | id), poisson(), ziformula = ~sex))
#@ tmb_hurdle_sim
golden("tmb_hurdle_sim", tmb("hurdle Poisson", "sim_counts", hurdle ~ x + (1 | g), truncated_poisson(), ziformula = ~1))
