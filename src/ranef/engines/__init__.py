"""Floor 3: arrays in, `Estimate` out. One module per engine."""

from ranef.engines.control import Control, make_control
from ranef.engines.estimate import Certificate, Estimate, Outcome

__all__ = ["Certificate", "Control", "Estimate", "Outcome", "make_control"]
