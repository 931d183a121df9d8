"""A family with its links and modifiers settled: what a fit assumes about a response given its predictors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ranef.errors import ArgumentError, OptionError, nearest
from ranef.families.links import ALIASES, LINKS, Link, link_of, shifted
from ranef.families.table import INSTEAD, ZERO, Entry, entries, names

if TYPE_CHECKING:
    from ranef.families.custom import Custom

PREFIXES = ("truncated_", "hurdle_", "hurdle.", "zero_inflated_", "zero_truncated_", "zi_", "zi.", "zt_")
THRESHOLDS = ("flexible", "symmetric", "symmetric2", "equidistant")
SCALE = "scale"
CALLED = re.compile(r"([\w.]+)\s*\((.*)\)", re.DOTALL)  # a family written as a call: Gamma(link="log")
#: Other names of parameters: brms' and glmmTMB's.
ALSO = {
    **dict.fromkeys(("mu", "cond", "conditional", "conditional_mean"), "mean"),
    "disp": "dispersion",
    **dict.fromkeys(("zi", "zprob"), ZERO),
}


@dataclass(frozen=True)
class Distribution:
    """A family as a fit uses it.

    Attributes
    ----------
    entry : Entry
        Its row in the table.
    links : tuple of str
        The link of every parameter of the table's row.
    truncated : bool
        Whether zeros are impossible (for counts); with `zero_inflation` that is a hurdle.
    zero_inflation : bool
        Whether a further predictor, the last, gives the probability of an extra zero.
    zero_link : str
        Its link.
    categories : int
        Number of ordered categories; 0 for other families.
    threshold : str
        How thresholds are arranged: "flexible", "symmetric", "symmetric2" (about 0) or "equidistant".
    scaled : bool
        Whether an ordinal family has a scale.
    levels : tuple of str
        The categories of a multinomial response but the first, which name its predictors.
    counts : bool
        Whether a row has counts of the categories, and not one of them.
    custom : Custom or None
        What the user wrote, of a family that is not in the table.
    bounded : bool
        Whether the response is truncated to bounds of its rows, `trunc(y, lb, ub)`.
    inflated_by : str
        The formula that a name such as "hurdle_poisson" implies for the zero part; "" for none.
    """

    entry: Entry
    links: tuple[str, ...]
    truncated: bool = False
    zero_inflation: bool = False
    zero_link: str = "logit"
    categories: int = 0
    threshold: str = "flexible"
    scaled: bool = False
    levels: tuple[str, ...] = ()
    counts: bool = False
    custom: Custom | None = None
    inflated_by: str = ""
    bounded: bool = False

    @property
    def name(self) -> str:
        """Name as glmmTMB has it: "truncated_poisson" for the truncated form."""
        return f"truncated_{self.entry.name}" if self.truncated else self.entry.name

    @property
    def link(self) -> str:
        """Link of the mean."""
        return self.links[0]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that have a linear predictor, in the core's order."""
        if self.levels:
            return self.levels
        own = (p.name for p in self.entry.parameters if self.scaled or p.name != SCALE or not self.entry.ordinal)
        return (*own, *((ZERO,) if self.zero_inflation else ()))

    @property
    def plain_mean(self) -> bool:
        """Whether the mean is the first parameter, untouched by zeros (and ones)."""
        own_mean = self.custom is not None and self.custom.mean is not None
        ends = self.custom is None and self.entry.support == "closed_unit"
        return not (self.zero_inflation or self.truncated or self.bounded or self.categorical or own_mean or ends)

    @cached_property
    def categorical(self) -> bool:
        """Whether responses are categories, ordered or not."""
        return self.entry.ordinal or self.entry.nominal

    @cached_property
    def is_gaussian_identity(self) -> bool:
        """Whether the likelihood of the linear engine applies."""
        plain = not (self.zero_inflation or self.bounded)
        return self.entry.name == "gaussian" and self.link == "identity" and plain

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What the core is told."""
        own = self.links[: 1 + self.scaled] if self.categorical else self.links
        return {
            "name": self.entry.name,
            "links": [*own, *([self.zero_link] if self.zero_inflation else [])],
            "scaled": self.scaled,
            "zero_inflation": self.zero_inflation,
            "truncated": self.truncated,
            "constants": {},
            "categories": self.categories,
        }

    def link_of(self, parameter: str) -> Link:
        """Return the link of a parameter."""
        if self.levels:
            return link_of("logit")
        if parameter == ZERO:
            return link_of(self.zero_link)
        at = self.position(parameter)
        link = link_of(self.links[at])
        return shifted(link) if self.entry.parameters[at].range == "(1, 2)" else link

    def own_name(self, parameter: str) -> str:
        """Return what the family calls a parameter that others call so."""
        if parameter in self.parameters:
            return parameter
        return ALSO.get(parameter) or self.entry.nicknames.get(parameter, parameter)

    def position(self, parameter: str) -> int:
        """Return which predictor belongs to a parameter.

        Raises
        ------
        OptionError
            If the family has no such parameter.
        """
        wanted = self.own_name(parameter)
        if wanted not in self.parameters:
            raise OptionError(f"{self.name} has no parameter {parameter!r}; {nearest(parameter, self.parameters)}")
        return self.parameters.index(wanted)


def read_family(family: Any, link: Any = None) -> Distribution:
    """Return the distribution that `family=` and `link=` name.

    Parameters
    ----------
    family : str, Distribution, or a call of `rf.families`
        A name of ours or of lme4, glmmTMB or brms, or the text of a call as R has it, "Gamma(link = 'log')".
    link : str or dict, optional
        Link of the mean, or parameter -> link.

    Raises
    ------
    ArgumentError
        If it is neither text nor a family.
    OptionError
        If there is no such family or link; the nearest is named.
    """
    if callable(family) and not isinstance(family, type):
        family = family()
    if isinstance(family, Distribution):
        return family if link is None else with_links(family, link)
    if not isinstance(family, str):
        raise ArgumentError(
            f"family= takes a name such as 'poisson' or one of rf.families, not {type(family).__name__}"
        )
    called = CALLED.fullmatch(family.strip())
    found = _named(family.strip()) if called is None else _of_call(called[1], called[2], family)
    return found if link is None else with_links(found, link)


def made(name: str, link: Any = None, /, arguments: Mapping[str, Any] | None = None) -> Distribution:
    """Return the family of a call: a link of the mean, `threshold=`, and links by parameter (brms' `link_phi` too)."""
    links = dict(arguments or {})
    threshold = links.pop("threshold", None)
    family = read_family(name, links.pop("link", link))
    family = family if threshold is None else with_threshold(family, threshold)
    return with_links(family, {p.removeprefix("link_"): asked for p, asked in links.items()}) if links else family


def _of_call(name: str, text: str, family: str) -> Distribution:
    """Return the family of the text of a call: a link may stand first, others are named."""
    known = _named(name)
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and len(call.args) < 2):
            raise ValueError
        first, named = [_word(a) for a in call.args], {str(k.arg): _word(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise OptionError(
            f"family={family!r} is not understood; write a name, or a name with its link: \"Gamma(link='log')\""
        ) from None
    given = [*(("", value) for value in first), *named.items()]
    for word, value in ((w, v) for w, v in given if isinstance(v, int | float)):
        own = known.own_name(word) if known.own_name(word) in known.parameters[1:] else "dispersion"
        where = f"{own}={value!r}" if own in known.parameters else "fixed={…}"
        raise OptionError(f"family={family!r}: a family's call takes links; fit holds a parameter at a number, {where}")
    return made(name, first[0] if first else None, named)


def _word(node: ast.expr) -> Any:
    """Return what stands for a link: a text, or a name as R takes it without quotes."""
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _named(text: str) -> Distribution:
    known, name = names(), text.lower()
    if name in known:
        entry = entries()[known[name]]
        return Distribution(entry, tuple(p.link for p in entry.parameters))
    if name in INSTEAD:
        raise OptionError(f"family={text!r}: {INSTEAD[name]}")
    if (link := ALIASES.get(name, name)) in LINKS:
        raise OptionError(f"family={text!r} is a link: write family='binomial', link={link!r}, or the family it is of")
    prefix = next((p for p in PREFIXES if name.startswith(p) and name.removeprefix(p) in known), None)
    if prefix is None:
        near = nearest(name, [*known])
        near = near if near.startswith("did") else f"known: {', '.join(entries())}"
        raise OptionError(f"family={text!r} is unknown; {near}")
    base = _named(name.removeprefix(prefix))
    cut = prefix in ("truncated_", "zero_truncated_", "zt_")
    truncated = cut or (prefix in ("hurdle_", "hurdle.") and base.entry.support == "count")
    if truncated and not base.entry.truncated:
        raise OptionError(f"family={text!r}: {base.name} has no zero-truncated form")
    if not cut and not base.entry.inflatable:
        raise OptionError(
            f"family={text!r}: the responses of {base.name!r} have no zeros apart; write family={base.name!r}, or take "
            f"one of {', '.join(e.name for e in entries().values() if e.inflatable)}"
        )
    inflated = "" if cut else "~ 1"
    return replace(base, truncated=truncated, inflated_by=inflated)


def check_once(given: Iterable[tuple[str, str]], called: Mapping[str, str], family: Distribution) -> None:
    """Refuse two values of one parameter.

    Parameters
    ----------
    given : iterable of (name, text)
        Names of parameters, and how the value was given.
    called : mapping
        Other name -> the parameter's own.
    family : Distribution

    Raises
    ------
    ArgumentError
    """
    seen: dict[str, str] = {}
    for name, text in given:
        own = called.get(name, name)
        if own in seen:
            raise ArgumentError(
                f"{seen[own]} and {text} are one parameter of family={family.name!r}, {own!r}: give one of them"
            )
        seen[own] = text


def with_links(family: Distribution, link: Any) -> Distribution:
    """Return the family with other links: the mean's, or those of a dict parameter -> link."""
    asked = link if isinstance(link, Mapping) else {"mean": link}
    known = {name: family.own_name(name) for name in map(str, asked)}
    check_once([(name, f"link={{{name!r}: …}}") for name in known], known, family)
    links, zero = list(family.links), family.zero_link
    for parameter, name in asked.items():
        if not isinstance(name, str):
            raise ArgumentError(f"link= takes a name such as 'log', not {type(name).__name__}")
        if known[str(parameter)] == ZERO:
            zero = _zero_link(family, name)
            continue
        at = replace(family, scaled=family.entry.ordinal).position(str(parameter))
        row = family.entry.parameters[at]
        wanted = ALIASES.get(name, name)
        if wanted not in row.links:
            raise OptionError(
                f"link={name!r} is not available for the {row.name} of {family.name}; {nearest(name, row.links)}"
            )
        links[at] = wanted
    return replace(family, links=tuple(links), zero_link=zero)


def zero_links() -> tuple[str, ...]:
    """Return the links that the probability of extra zeros may have."""
    return tuple(name for name in entries()["binomial"].parameters[0].links if link_of(name).legal == "unit")


def _zero_link(family: Distribution, name: str) -> str:
    """Return the link of the probability of extra zeros: one that keeps it between 0 and 1."""
    links, wanted = zero_links(), ALIASES.get(name, name)
    if not family.entry.inflatable:
        raise OptionError(f"link={{{ZERO!r}: {name!r}}}: family={family.name!r} has no zeros to inflate")
    if wanted not in links:
        raise OptionError(f"link={name!r} is not available for {ZERO}; {nearest(name, links)}")
    return wanted


def with_threshold(family: Distribution, threshold: Any) -> Distribution:
    """Return an ordinal family with another arrangement of its thresholds."""
    if threshold not in THRESHOLDS:
        raise OptionError(f"threshold={threshold!r} is unknown; {nearest(threshold, THRESHOLDS)}")
    return replace(family, threshold=threshold)
