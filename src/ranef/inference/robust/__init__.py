"""Cluster-robust covariances of coefficients, the scores they are made of, and the information of all parameters."""
