"""Audits from the command line: what was claimed, what was found, and what that means."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

from fedseal.cli.deploying import quiet_logs
from fedseal.errors import ExitCode
from fedseal.study import Contract, load_study

if TYPE_CHECKING:
    from fedseal.simulation.audit.inversion import Read
    from fedseal.simulation.audit.run import Audited

# The short form of docs/audit.md.
LIMITS = (
    "An audit can falsify a claim, never prove it: it is one attack on one simulated run. A build that passes may "
    "still leak to a better attack. Details: docs/audit.md."
)
LESSON = (
    "Secure aggregation blends the sites and hides whose record it is. It does not hide the record: one that alone "
    "fires a ReLU unit is in the sum as it is, and a server that makes the model can arrange that many are. Without "
    "noise, what protects is luck and large batches. Protection is all of these together: secure aggregation, "
    "differential privacy, the model's hash in the signed header (all sites compute on the same model), and code that "
    "a site has reviewed and signed. The noise of these rows only stops this attack: their epsilon promises nothing."
)


@dataclass(frozen=True, slots=True)
class Claim:
    """What the command line changes of a claim; None keeps the study's or the default."""

    plan: Literal["local", "distributed"] | None
    epsilon: float | None
    delta: float | None
    rounds: int | None

    def contract(self, folder: Path | None) -> Contract:
        """The claim to audit.

        Raises:
            ConfigError: the study cannot be read, or a number is out of range.
        """
        from fedseal.simulation.audit.claim import changed_claim, default_claim

        base = default_claim() if folder is None else load_study(folder).contract
        return changed_claim(base, plan=self.plan, epsilon=self.epsilon, delta=self.delta, rounds=self.rounds)


def run_audit(
    folder: Path | None, claim: Claim, *, canaries: int, seed: int | None, self_test: bool, as_json: bool
) -> ExitCode:
    """Audit, print the verdict, and return the exit code.

    Args:
        folder: the study's; None audits the default plan.
        claim: what differs from the study's.
        canaries: how many coins.
        seed: of everything; a new one if None.
        self_test: with too little noise, which has to be caught.
        as_json: print numbers on standard output; everything for people then goes to standard error.
    """
    from fedseal.simulation.audit.run import AuditOptions, audit

    quiet_logs()
    console = Console(stderr=as_json, highlight=False, soft_wrap=not as_json and not Console().is_terminal)
    options = AuditOptions(canaries=canaries, seed=seed, self_test=self_test)
    found = audit(claim.contract(folder), options, lambda title: console.print(f"... {title}"))
    console.print(audit_table(found))
    console.print(verdict(found), style="bold red" if found.falsified != self_test else "bold green")
    console.print(LIMITS)
    if as_json:
        print(json.dumps(asdict(found) | {"falsified": found.falsified}, indent=2))
    # In a self-test a build is run that has to be caught.
    return ExitCode.OK if found.falsified == self_test else ExitCode.FALSIFIED


def audit_table(found: "Audited") -> Table:
    """Claim, findings and the reach of this audit."""
    table = Table(title="Audit of this build in a simulated federation", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("found")
    table.add_row("claim", f"epsilon {found.epsilon:.3f} at delta {found.delta:g} (promised: {found.promise:g})")
    table.add_row("plan", f"{found.plan}, {found.rounds} rounds, noise multiplier {found.noise_multiplier:.3f}")
    right, made = found.guesses.right, found.guesses.made
    table.add_row("right guesses", f"{right} of {made}, for {found.guesses.canaries} canaries")
    table.add_row("epsilon is at least", f"{found.lower_bound:.3f} (95 % confidence)")
    table.add_row("ceiling of this audit", f"{found.ceiling:.2f}: no larger claim could be falsified by {made} guesses")
    noise, reach = found.noise, found.reach
    table.add_row("noise / planned, variance", f"{noise.ratio:.4f} (95 %: {noise.low:.4f} to {noise.high:.4f})")
    if reach is not None:
        table.add_row("a person's reach / planned", f"{reach.ratio:.3f} (95 %: {reach.low:.3f} to {reach.high:.3f})")
    table.add_row("draws of a canary", f"{found.draws:g} on average")
    table.add_row("seed", f"{found.seed}")
    table.add_row("CPU seconds", f"{found.cpu_seconds:.1f}")
    return table


def verdict(found: "Audited") -> str:
    """One sentence for each thing that does not fit the claim, or one that nothing was found."""
    reasons = []
    if found.guesses_falsify:
        reasons.append(
            f"so many right guesses have a probability of at most {found.p_value:.2g} if epsilon is {found.epsilon:.3f}"
        )
    if found.noise_falsifies:
        reasons.append(f"the noise has {found.noise.ratio:.3f} of the variance that the plan states")
    if found.reach_falsifies and found.reach is not None:
        reasons.append(f"one person moves the sum {found.reach.ratio:.2f} times as far as the plan allows")
    if found.self_test:
        return f"Self-test passed, the lax build was caught: {'; '.join(reasons)}." if reasons else "Self-test FAILED."
    return f"FALSIFIED: {'; '.join(reasons)}." if reasons else "Not falsified."


def run_inversion(trials: int, seed: int, *, as_json: bool) -> list[dict[str, object]]:
    """Play all scenes and print them.

    Args:
        trials: how often each.
        seed: fixes everything.
        as_json: everything for people goes to standard error.

    Returns:
        The rows, for JSON.
    """
    from fedseal.simulation.audit.inversion import demonstrate

    quiet_logs()
    console = Console(stderr=as_json, highlight=False, soft_wrap=not as_json and not Console().is_terminal)
    rows = demonstrate(seed, trials, tell=lambda name: console.print(f"... {name}"))
    console.print(inversion_table(rows))
    console.print(LESSON)
    return [
        asdict(row.scene) | {"records": row.records, "recovered": row.recovered, "epsilon": row.epsilon} for row in rows
    ]


def inversion_table(rows: list["Read"]) -> Table:
    """What the server read, scene by scene."""
    table = Table(title="Records that the server reads to an RMSE below 0.01", title_justify="left")
    table.add_column("what the server gets")
    table.add_column("sealed")
    table.add_column("epsilon", justify="right")
    table.add_column("read", justify="right")
    for row in rows:
        share = f"{row.fraction:.0%} of {row.records}"
        epsilon = "none" if row.epsilon is None else f"{row.epsilon:.0f}"
        table.add_row(row.scene.name, "no" if row.scene.sites == 1 else "yes", epsilon, share)
    return table
