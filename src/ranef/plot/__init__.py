"""Pictures of a fit. Each function takes the fit and returns matplotlib axes, labelled; `ax=` says where to draw."""

from ranef.plot.modes import caterpillar, shrinkage
from ranef.plot.profile import profile, profile_density, profile_pairs
from ranef.plot.residuals import qq, residuals_fitted
from ranef.plot.trajectories import trajectories

__all__ = [
    "caterpillar",
    "profile",
    "profile_density",
    "profile_pairs",
    "qq",
    "residuals_fitted",
    "shrinkage",
    "trajectories",
]
