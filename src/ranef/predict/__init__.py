"""Floor 5: predictions, fitted values and simulated responses of a fit."""

from ranef.predict.predict import Question, fitted, predict
from ranef.predict.simulate import simulate

__all__ = ["Question", "fitted", "predict", "simulate"]
