"""What every test may need: a core that lacks families' formulas gets those of the oracle."""

from __future__ import annotations

import oracle_families
from ranef import _core

oracle_families.install(_core)
