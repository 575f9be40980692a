"""What may run: for which purpose, by which strategy, which code, approved by whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import StringConstraints, ValidationError

from fedseal.compliance.data.code import code_digest
from fedseal.compliance.data.facts import Purpose
from fedseal.compliance.events.fields import Digest, PublicKey, RefusedRule
from fedseal.compliance.site_rules.approval import signers_of
from fedseal.compliance.site_rules.refused import Refused
from fedseal.config import Frozen
from fedseal.errors import ConfigError
from fedseal.inputs import Setting
from fedseal.study import Contract, Strategy, load_study

# Where a run of fedseal's own server says its contract; see server/app.py.
CONTRACT_KEY = "fedseal-contract"
Named = Annotated[str, StringConstraints(pattern=r"^[^\s:][^:]{0,127}(:[1-9][0-9]{0,8})?$")]


class StudyRules(Frozen):
    """What may run here. An empty list is no rule.

    ``purposes`` are those that a study's contract states as ``purpose``: one that states none is refused where any is
    listed. ``code`` are digests, as `fedseal site code` prints them; ``signers`` are public keys of persons, of whom
    one has to have signed the code's digest with `fedseal site approve-code`. Where both are given either will do.
    """

    purposes: tuple[Purpose, ...] = ()
    strategies: tuple[Strategy, ...] = ()
    code: tuple[Digest, ...] = ()
    signers: tuple[PublicKey, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether there is any rule."""
        return bool(self.purposes or self.strategies or self.code or self.signers)


class DataRules(Frozen):
    """Which data and labels on record may be used. An empty list is no rule.

    ``datasets`` are names, or names and numbers of versions, as ``cohort`` or ``cohort:3``. ``labels`` are names of
    guideline versions, or ids of label sets.
    """

    datasets: tuple[Named, ...] = ()
    labels: tuple[Annotated[str, StringConstraints(min_length=1, max_length=128)], ...] = ()

    @property
    def asks(self) -> bool:
        """Whether there is any rule."""
        return bool(self.datasets or self.labels)


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What a site knows of the study that is running: all that is stated, by its own copy and by the run's.

    ``code`` is ``sha256:`` and a digest, None where the node names no folder of code; ``signers`` are those who signed
    that digest.
    """

    purposes: frozenset[str | None]
    strategies: frozenset[str]
    code: str | None
    signers: frozenset[str]


@dataclass(frozen=True, slots=True)
class InUse:
    """What is on record about the data and labels in use; None where nothing is.

    ``labels`` are the names under which the label set may be listed.
    """

    dataset: str | None
    version: int | None
    labels: frozenset[str]


def study_facts(folder: Path | None, run_config: Mapping[str, Setting]) -> StudyFacts:
    """What is stated of the study: by the folder that this site's node names, and by the run's configuration.

    Args:
        folder: the site's own copy of the study; None where its node names none.
        run_config: what the run says of itself, bound by the header's input digest.

    Raises:
        Refused: the run states a contract that cannot be read.
    """
    contracts = [*_own(folder), *_stated(run_config)]
    code = None if folder is None else "sha256:" + code_digest(folder).hex()
    return StudyFacts(
        purposes=frozenset(contract.purpose for contract in contracts),
        strategies=frozenset(contract.training.strategy for contract in contracts),
        code=code,
        signers=frozenset() if folder is None or code is None else signers_of(folder, code),
    )


def _own(folder: Path | None) -> list[Contract]:
    if folder is None:
        return []
    try:
        return [load_study(folder).contract]
    except ConfigError:
        # A sealed app of another making has no contract; whatever rule needs one then refuses.
        return []


def _stated(run_config: Mapping[str, Setting]) -> list[Contract]:
    stated = run_config.get(CONTRACT_KEY)
    if stated is None:
        return []
    try:
        return [Contract.model_validate_json(str(stated))]
    except ValidationError:
        raise Refused(
            RefusedRule.PURPOSE,
            "a run whose contract cannot be read; this site's policy asks what it is for",
            next_step="Start runs with `fedseal`, of the same version.",
        ) from None


def check_study(rules: StudyRules, facts: StudyFacts) -> None:
    """Whether such a study may run here.

    Raises:
        Refused: its purpose, strategy or code is not allowed, or not stated.
    """
    if rules.purposes:
        _check_stated(RefusedRule.PURPOSE, "purpose", [p.value for p in rules.purposes], facts.purposes)
    if rules.strategies:
        _check_stated(RefusedRule.STRATEGY, "strategy", list(rules.strategies), facts.strategies)
    listed, signed = facts.code in rules.code, bool(facts.signers & set(rules.signers))
    if (rules.code or rules.signers) and not listed and not signed:
        raise Refused(
            RefusedRule.CODE,
            f"code {facts.code or 'of no known folder'}, which is neither listed nor signed by a reviewer of this site",
            next_step="Read the code; then add its digest to study.code in the site's policy, or sign it: "
            "fedseal site approve-code STUDY --key FILE",
        )


def _check_stated(
    rule: RefusedRule, what: Literal["purpose", "strategy"], allowed: list[str], stated: frozenset[str | None]
) -> None:
    if stated and stated <= set(allowed):
        return
    said = ", ".join(sorted(name or "none stated" for name in stated)) or "none stated"
    key = "purposes" if what == "purpose" else "strategies"
    raise Refused(
        rule,
        f"a study with {what} {said}; this site allows {', '.join(allowed)}",
        next_step=f"State an allowed one in the study's contract, or let the data owner add it to study.{key} in the "
        "site's policy.",
    )


def check_data(rules: DataRules, found: InUse) -> None:
    """Whether the data and labels in use may be used.

    Raises:
        Refused: they are not listed, or nothing is on record about them.
    """
    names = {found.dataset, f"{found.dataset}:{found.version}"} if found.dataset is not None else set()
    if rules.datasets and not names & set(rules.datasets):
        known = f"{found.dataset}:{found.version}" if found.dataset is not None else "data that is not registered"
        raise Refused(
            RefusedRule.DATA,
            f"the node would use {known}; this site's policy allows {', '.join(rules.datasets)}",
            next_step="Register the data (fedseal data register), or add it to data.datasets in the site's policy.",
        )
    if rules.labels and not found.labels & set(rules.labels):
        known = ", ".join(sorted(found.labels)) or "labels that are not on record"
        raise Refused(
            RefusedRule.LABELS,
            f"the node would use {known}; this site's policy allows {', '.join(rules.labels)}",
            next_step="Put the labels on record (fedseal labels), or add them to data.labels in the site's policy.",
        )
