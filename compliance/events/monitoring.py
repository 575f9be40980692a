"""The bodies of events about models that are watched: by which policy, what a window showed, what it led to.

From these alone every decision can be made again (`server.monitoring.replay`). Numbers are those of sealed sums over
all sites, noise and all; nothing of a single site is in them.
"""

from typing import Literal

from fedseal.compliance.events.fields import Count, Decimal, Digest, MonitorAction, Name
from fedseal.config import Frozen
from fedseal.privacy.inference.drift.classify import DriftKind, Obstacle
from fedseal.privacy.inference.drift.multiplicity import Alert


class MonitorPolicySet(Frozen):
    """``monitor.policy_set``: by these rules the server decides about windows from here on.

    ``policy`` is the digest of the whole policy; the rest is what decisions are made of.
    """

    policy: Digest
    windows_per_year: Decimal
    alpha: Decimal
    warnings: Decimal
    rule: Literal["holm", "2of3"]
    min_sites: Count
    min_rows: Count
    warn: Literal["none", "shadow"]
    alarm: Literal["none", "propose", "auto"]
    concept: Literal["roll_back", "as_alarm"]
    cooldown: Count
    margin: Decimal
    confidence: Decimal


class WindowTest(Frozen):
    """One test of a window: its p-value knows the noise, and is not corrected for the other tests."""

    name: Name
    statistic: Decimal
    degrees: Count | None
    p: Decimal


class WindowEvaluated(Frozen):
    """``monitor.evaluated``: what the sealed sum of a window showed of a model.

    ``epsilon`` is pure, of this window for each of its persons; None without privacy. ``rows`` is a noisy sum over all
    sites. ``errors`` and ``errors_variance``: errors beyond those expected, None where they are not watched.
    ``aggregate`` is the digest of the sum's integers, as `round.aggregated` has it; None where nothing was released.
    """

    model: Digest
    policy: Digest
    window: Count
    sites: Count
    rows: Decimal
    epsilon: Decimal | None
    tests: tuple[WindowTest, ...]
    errors: Decimal | None
    errors_variance: Decimal | None
    aggregate: Digest | None


class MonitorDecided(Frozen):
    """``monitor.decided``: what the window led to. ``obstacle`` says why it could not be evaluated; no drift is
    something else. ``fallback`` is the model there was to go back to, ``target`` the one that is gone back to, or that
    takes the model's place.
    """

    model: Digest
    policy: Digest
    window: Count
    action: MonitorAction
    alert: Alert
    obstacle: Obstacle | None
    kinds: tuple[DriftKind, ...]
    speaking: tuple[Name, ...]
    fallback: Digest | None
    target: Digest | None


class ShadowCompared(Frozen):
    """``monitor.compared``: a candidate beside the model in use on the persons of a window, from two sealed counts.

    ``variance`` is that of the noise in either. ``gates_pass``: whether the registry's gates let the candidate be.
    """

    model: Digest
    policy: Digest
    window: Count
    candidate: Digest
    candidate_only: Decimal
    current_only: Decimal
    rows: Decimal
    variance: Decimal
    epsilon: Decimal | None
    gates_pass: bool
