"""`registry.toml`: what a bundle needs before an alias may point to it (docs/models.md, docs/schemas/registry-1.json).

What no rule can turn off: the log's checkpoint over registration and approvals has to be cosigned by a quorum, and an
alias without rules is closed.
"""

from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import Field, model_validator

from fedseal.compliance.events.fields import Alias, Meaning, Name, Role, sha256
from fedseal.compliance.log.canonical import Json, encode
from fedseal.config import Frozen, read_toml, validate
from fedseal.errors import PolicyRefused

Limit = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]


class MetricGate(Frozen):
    """The named measure, less its margin, is at least this, in every evaluation that has it."""

    kind: Literal["metric"]
    measure: Name
    at_least: Limit


class SubgroupGate(Frozen):
    """The same for each of at least so many subgroups: measures called ``measure~subgroup``."""

    kind: Literal["worst-subgroup"]
    measure: Name
    at_least: Limit
    subgroups: int = Field(default=2, ge=1, le=10_000)


class GoldSetGate(Frozen):
    """The same on items whose labels are beyond doubt: the measure called ``gold-set.measure``."""

    kind: Literal["gold-set"]
    measure: Name
    at_least: Limit


class EpsilonGate(Frozen):
    """At no site has a population that models were trained on been charged more than this, by the log alone."""

    kind: Literal["epsilon"]
    at_most: float = Field(gt=0, le=1000)


Gate = Annotated[MetricGate | SubgroupGate | GoldSetGate | EpsilonGate, Field(discriminator="kind")]


class Required(Frozen):
    """So many persons have to sign with this meaning, each in one of these roles."""

    meaning: Meaning
    roles: tuple[Role, ...] = Field(min_length=1)
    persons: int = Field(default=1, ge=1, le=20)


class AliasRules(Frozen):
    """What one alias asks for.

    No person fills two of the places in ``approvals``. With ``not_author`` whoever signed the bundle as authored does
    not count for another meaning. ``organisations``: so many different ones, the server's and sites', have signed.
    """

    approvals: tuple[Required, ...] = ()
    not_author: bool = True
    organisations: int = Field(default=1, ge=1, le=20)
    gates: tuple[Gate, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> "AliasRules":
        if len({required.meaning for required in self.approvals}) != len(self.approvals):
            raise ValueError("a meaning stands in two of the approvals: give it more persons or roles")
        if self.organisations > 1 and not self.approvals:
            raise ValueError("organisations are counted among approvals, and none is required")
        return self


class RegistryRules(Frozen):
    """The whole file: a table for each alias that is in use."""

    version: Literal[1]
    candidate: AliasRules | None = None
    validated: AliasRules | None = None
    canary: AliasRules | None = None
    production: AliasRules | None = None

    def of(self, alias: Alias) -> AliasRules:
        """What an alias asks for; PolicyRefused if it has no table."""
        rules: AliasRules | None = getattr(self, alias.value)
        if rules is None:
            raise PolicyRefused(
                f"the registry's rules have no table [{alias.value}]: the alias is closed",
                next_step="Say in registry.toml what a model needs for it; docs/models.md has an example.",
            )
        return rules

    @property
    def digest(self) -> str:
        """How a promotion names the rules that were asked."""
        # The log's canonical form has no floats: the whole is one string in it.
        return sha256(encode(cast(Json, self.model_dump_json())))


def read_rules(path: Path) -> RegistryRules:
    """The rules in a file; ConfigError with its line if there is something wrong."""
    tables, text = read_toml(path)
    return validate(RegistryRules, tables, text=text, source=str(path))


def unmet(required: tuple[Required, ...], signers: dict[Meaning, frozenset[str]]) -> tuple[tuple[Required, ...], ...]:
    """The requirements that too few persons have signed for; or, where each alone has enough, a smallest group of them
    that too few different persons have.

    No person may fill two places, and so many places can be filled exactly if any group of requirements has at least
    as many persons as places (Hall 1935).
    """
    for many in range(1, len(required) + 1):
        found = tuple(group for group in combinations(required, many) if not _filled(group, signers))
        if found:
            return found if many == 1 else found[:1]
    return ()


def _filled(group: tuple[Required, ...], signers: dict[Meaning, frozenset[str]]) -> bool:
    persons = frozenset[str]().union(*(signers.get(one.meaning, frozenset()) for one in group))
    return len(persons) >= sum(one.persons for one in group)
