"""What a command found, as text and as JSON, and the exit code that says it."""

import json
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

MAX_SHOWN = 50


class Exit(IntEnum):
    """Exit codes. Where several apply, the first of TAMPERED, STALE, NO_QUORUM is given."""

    OK = 0
    TAMPERED = 1
    USAGE = 2
    NO_QUORUM = 3
    STALE = 4


class Check(StrEnum):
    """The checks. Every finding names one, and a report names all that ran."""

    CHECKPOINT = "checkpoint"
    LOG_SIGNATURE = "log signature"
    COSIGNATURE = "cosignature"
    QUORUM = "quorum"
    FRESH = "freshness"
    ENTRIES = "entries"
    TILES = "tiles"
    ROOT = "root"
    FORM = "canonical form"
    AUTHOR = "author signature"
    CHAIN = "seq and prev"
    HISTORY = "history"
    INCLUSION = "inclusion"


@dataclass(frozen=True)
class Finding:
    """One check that did not hold: where, and what was found."""

    check: Check
    where: str
    message: str
    exit: Exit = Exit.TAMPERED


@dataclass
class Report:
    """The outcome of a command.

    ``facts`` are lines of name and text about what was examined, ``remarks`` what a reader should know besides,
    ``skipped`` the checks that were not made, ``evidence`` texts to keep, of several lines.
    """

    command: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    checked: list[Check] = field(default_factory=list)
    skipped: list[tuple[Check, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    verdict: str = ""
    _count: Counter[Check] = field(default_factory=Counter)

    def add(self, check: Check, where: str, message: str, code: Exit = Exit.TAMPERED) -> None:
        """Record that a check did not hold. Past the first 50 of its kind a finding is only counted."""
        self._count[check] += 1
        if self._count[check] <= MAX_SHOWN:
            self.findings.append(Finding(check, where, message, code))

    @property
    def unshown(self) -> int:
        """How many findings are counted and not kept."""
        return self._count.total() - len(self.findings)

    @property
    def exit(self) -> Exit:
        """The exit code: the gravest finding."""
        found = {each.exit for each in self.findings}
        return next((code for code in (Exit.TAMPERED, Exit.STALE, Exit.NO_QUORUM) if code in found), Exit.OK)

    def _verdict(self) -> str:
        words = {
            Exit.OK: "OK",
            Exit.TAMPERED: "TAMPERED",
            Exit.NO_QUORUM: "QUORUM MISSING",
            Exit.STALE: "ROLLED BACK OR STALE",
        }
        return self.verdict or words[self.exit]

    def text(self) -> str:
        """For a person to read. Characters that could steer a terminal are escaped."""
        rows = [*self.facts, ("checked", ", ".join(self.checked))]
        rows += [("NOT CHECKED", f"{check}: {why}") for check, why in self.skipped]
        rows += [("FAILED", f"{each.where}: {each.check}: {each.message}") for each in self.findings]
        if self.unshown:
            rows.append(("FAILED", f"{self.unshown} more of the same checks, not shown"))
        rows += [("remark", each) for each in self.remarks]
        rows += [("evidence", line) for each in self.evidence for line in each.split("\n")]
        rows.append(("verdict", self._verdict()))
        return "\n".join(f"{name:<12} {printable(text)}" for name, text in rows)

    def json(self) -> str:
        """The same as one JSON object."""
        value = {
            "command": self.command,
            "verdict": self._verdict(),
            "exit": int(self.exit),
            "facts": [{"name": name, "text": text} for name, text in self.facts],
            "checked": list(self.checked),
            "not_checked": [{"check": check, "why": why} for check, why in self.skipped],
            "findings": [
                {"check": each.check, "where": each.where, "message": each.message, "exit": int(each.exit)}
                for each in self.findings
            ],
            "findings_not_shown": self.unshown,
            "remarks": self.remarks,
            "evidence": self.evidence,
        }
        return json.dumps(value, indent=2)


def printable(text: str) -> str:
    """``text`` with all escaped that does not print, newlines too: what a log says must not pass for a verdict."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in text
    )
