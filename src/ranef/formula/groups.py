"""Names of grouping factors: the one we print, and those that other packages print for the same groups.

(1 | comm/mom) groups by `comm` and by `comm:mom`; lme4 and glmmTMB call the latter `mom:comm`, nlme `comm/mom`. A name
is looked up as it is, then without regard to the order of its factors; where several terms would fit, none does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ranef.errors import UnknownColumnError, nearest

NUMBERED = re.compile(r"(.*)(\.\d+)")  # a second term of a group


def group_named(name: object, known: Iterable[str]) -> str | None:
    """Return the one of `known` that a name means, None where there is none, or more than one."""
    names = list(known)
    if not isinstance(name, str) or name in names:
        return name if isinstance(name, str) else None
    wanted = _forms(name)
    found = [own for own in names if wanted & _forms(own)]
    return found[0] if len(found) == 1 else None


def _forms(name: str) -> set[tuple[str, ...]]:
    """Return the factors in one order, with and without the number of a second term read as such."""
    bare = re.sub(r"\s+", "", name)
    numbered = NUMBERED.fullmatch(bare)
    plain = tuple(sorted(re.split("[:/]", bare)))
    return {plain, (*sorted(re.split("[:/]", numbered[1])), numbered[2])} if numbered else {plain}


class ByGroup(dict[str, Any]):
    """A dict by grouping factor that understands other packages' names of the same groups."""

    def __missing__(self, key: object) -> Any:
        found = group_named(key, self)
        if found is None:
            raise UnknownColumnError(f"there is no grouping factor {key!r}; {nearest(key, self)}")
        return self[found]

    def __contains__(self, key: object) -> bool:
        return group_named(key, self) is not None

    def get(self, key: object, default: Any = None) -> Any:
        """Return what belongs to a group, or the default."""
        found = group_named(key, self)
        return default if found is None else self[found]
