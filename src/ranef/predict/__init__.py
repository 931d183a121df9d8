"""Floor 5: predictions, fitted values and simulated responses of a fit."""

from ranef.predict.predict import fitted, predict
from ranef.predict.simulate import simulate
from ranef.predict.targets import Question

__all__ = ["Question", "fitted", "predict", "simulate"]
