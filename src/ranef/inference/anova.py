"""`anova`: several fits are compared by likelihood ratios."""

from __future__ import annotations

from typing import Any

from ranef.errors import NotAvailableError
from ranef.inference.likelihood_tests import compare_models


def anova(m: Any, *others: Any, **options: Any) -> Any:
    """Compare fits by likelihood ratios; see `compare_models`."""
    if not others:
        raise NotAvailableError("anova: tests of the terms of one fit are not available in this version; give several")
    return compare_models(m, *others, **options)
