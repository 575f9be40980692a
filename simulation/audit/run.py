"""`audit`: a run of this build with canaries in it, attacked with everything that the threat model gives an attacker.

The auditor sees the released models and takes off what its accomplices sent (`auditor`). What is left is what the
claim is about, and nothing else.
"""

import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from fedseal.client.app import app as client_app
from fedseal.client.mod import DATA_KEY, STORE_KEY
from fedseal.client.trainer import Arrays
from fedseal.errors import ConfigError
from fedseal.privacy.accounting import spent_by
from fedseal.privacy.audit.one_run import CONFIDENCE, Guesses, ceiling, epsilon_lower_bound, p_value
from fedseal.privacy.audit.scores import NoiseTest, ReachTest, guess, log_likelihood_ratios, noise_test, reach_test
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.server.app import app as server_app
from fedseal.simulation.audit.auditor import OTHERS, SITES, TASK, VICTIM, Accomplice, Target, flat, prepare
from fedseal.simulation.audit.canaries import DIMENSION, MOST_CANARIES, NOBODY, Canaries, Design, quiet
from fedseal.simulation.federation import FIRST_NODE, Federation, enrol
from fedseal.simulation.grid import LocalGrid, Observer
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import study_config
from fedseal.study import Contract

Real = NDArray[np.float64]

FEWEST_CANARIES = 10
# Longer than the clip, so that a build that clips too late or not at all is seen.
LENGTH_IN_CLIPS = 4.0
# Too little noise, and too much of one person, falsify at this level; the guesses at 5 %.
PLAN_LEVEL = 0.001
# What the self-test's sites add noise for, in place of the claim.
SELF_TEST_EPSILON = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """How to audit.

    ``canaries``: how many coins are flipped; half of them are guessed. ``seed``: of the coins and of everything else,
    a new one if None. ``self_test``: the sites add only the noise that epsilon 1000 asks for, and are judged by the
    claim.
    """

    canaries: int = 2000
    seed: int | None = None
    self_test: bool = False


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit came to.

    Attributes:
        plan: the kind of plan that was claimed.
        epsilon: the epsilon of the claimed plan's releases, what a run's report shows.
        delta: the claim's.
        promise: the epsilon of the contract, at least ``epsilon``.
        rounds: releases that were made.
        noise_multiplier: of the noise that the accomplices do not know, in a correct build.
        draws: how often a canary is drawn on average if it takes part.
        guesses: how many coins were guessed, and how many rightly.
        lower_bound: the epsilon that the guesses rule out, at 95 %.
        p_value: of the guesses, if the claim holds.
        ceiling: the most that ``lower_bound`` could have been with so many guesses.
        noise: the test of the noise's variance.
        reach: the test of how far one person moves the sum; None if all coins fell tails.
        seed: repeats this audit.
        self_test: whether the sites were told to add too little noise.
        cpu_seconds: this process, from the claim to the verdict.
    """

    plan: str
    epsilon: float
    delta: float
    promise: float
    rounds: int
    noise_multiplier: float
    draws: float
    guesses: Guesses
    lower_bound: float
    p_value: float
    ceiling: float
    noise: NoiseTest
    reach: ReachTest | None
    seed: int
    self_test: bool
    cpu_seconds: float

    @property
    def guesses_falsify(self) -> bool:
        """Whether so many right guesses have a probability of at most 5 % if the claim holds."""
        return self.p_value <= 1 - CONFIDENCE

    @property
    def noise_falsifies(self) -> bool:
        """Whether so little noise has a probability of at most 0.1 % if the plan was run."""
        return self.noise.p_value <= PLAN_LEVEL

    @property
    def reach_falsifies(self) -> bool:
        """Whether persons weigh more than they do in all but 0.1 % of the runs of the plan."""
        return self.reach is not None and self.reach.p_value <= PLAN_LEVEL

    @property
    def falsified(self) -> bool:
        """Whether the claim does not stand."""
        return self.guesses_falsify or self.noise_falsifies or self.reach_falsifies


def audit(claim: Contract, options: AuditOptions, tell: Callable[[str], None] = lambda _: None) -> Audited:
    """Run a federation under a claim with canaries in it, and see whether the claim stands.

    Args:
        claim: a contract with plan local or distributed. Its promise, clip norm, retries, rounds, local steps and
            sample rate are audited, with the whole promise for updates; its task, persons, cohort and strategy are
            not used.
        options: how.
        tell: told what begins.

    Raises:
        ConfigError: the claim has no plan to audit, or the number of canaries is out of range.
    """
    started = time.process_time()
    if not FEWEST_CANARIES <= options.canaries <= MOST_CANARIES:
        raise ConfigError(f"an audit takes from {FEWEST_CANARIES} to {MOST_CANARIES} canaries")
    seed = secrets.randbits(62) if options.seed is None else options.seed
    target = executed = prepare(claim, options.canaries)
    if options.self_test:
        lax = claim.privacy.model_copy(update={"epsilon": SELF_TEST_EPSILON})
        executed = prepare(claim.model_copy(update={"privacy": lax}), options.canaries)
    included = KeyedRandomness(seed, "audit").stream("coins").coins(0.5, options.canaries)
    design = Design(options.canaries, seed, LENGTH_IN_CLIPS * claim.privacy.clip_norm)
    tell(f"{claim.training.rounds} rounds under plan {claim.privacy.plan}, {options.canaries} canaries")
    with tempfile.TemporaryDirectory(prefix="fedseal-audit-") as folder, one_thread():
        left = _attacked(Path(folder), executed, design, included, seed)
    return _judge(target, design, included, left, seed, self_test=options.self_test, started=started)


def _attacked(folder: Path, target: Target, design: Design, included: NDArray[np.bool_], seed: int) -> list[Real]:
    """Train, and take off from each released update what the accomplices know: one vector a round, in sums of clipped
    gradients.
    """
    data = {name: folder / "data" / name for name in SITES}
    # Somebody with a gradient of zero, should all coins fall tails.
    design.write(data[VICTIM], np.append(np.flatnonzero(included), NOBODY))
    for name in OTHERS:
        design.write(data[name], np.array([NOBODY]))
    federation = enrol(folder / "federation", target.contract, target.plans, dict.fromkeys(SITES, target.persons), seed)
    models = _train(target.contract, federation, data, seed)
    own = [Accomplice(target, federation, data, name) for name in target.accomplices]
    return [
        flat(before, after) * target.as_sums - sum((site.sent(number, before) for site in own), np.zeros(DIMENSION))
        for number, (before, after) in enumerate(pairwise(models))
    ]


def _train(contract: Contract, federation: Federation, data: Mapping[str, Path], seed: int) -> list[Arrays]:
    """Run the deployed apps; the model before the first round and after each."""
    path = federation.folder / "initial.safetensors"
    first: Arrays = {"weight": np.zeros((1, DIMENSION), dtype=np.float32)}
    path.write_bytes(safetensors.numpy.save(first))
    models = [first]
    nodes = {
        FIRST_NODE + i: {STORE_KEY: str(store), DATA_KEY: str(data[name])}
        for i, (name, store) in enumerate(federation.site_stores.items())
    }
    text, rounding = contract.model_dump_json(), Rounding.STOCHASTIC
    config = study_config(Canaries(), TASK, text, federation.server_store, path, len(nodes), rounding)
    observer = Observer(lambda *_: None, lambda record: models.append(record.model), lambda _: None)
    LocalGrid(client_app, nodes, run_config=config, observer=observer).serve(server_app, seed=seed)
    return models


def _judge(
    target: Target,
    design: Design,
    included: NDArray[np.bool_],
    left: list[Real],
    seed: int,
    *,
    self_test: bool,
    started: float,
) -> Audited:
    """The verdict on what was released, by the plan that was claimed."""
    mechanism, releases, privacy = target.mechanism, len(left), target.contract.privacy
    epsilon = spent_by(((target.plan, releases),), privacy.delta)
    scores = design.scores(np.sum(left, axis=0)) / privacy.clip_norm
    # Fixed beforehand: how many to guess may not depend on how well they can be guessed.
    guesses = guess(log_likelihood_ratios(scores, mechanism, releases), included, design.count // 2)
    variance = mechanism.steps * (mechanism.noise_multiplier * privacy.clip_norm) ** 2
    return Audited(
        plan=privacy.plan,
        epsilon=epsilon,
        delta=privacy.delta,
        promise=privacy.epsilon,
        rounds=releases,
        noise_multiplier=mechanism.noise_multiplier,
        draws=mechanism.sample_rate * mechanism.steps * releases,
        guesses=guesses,
        lower_bound=epsilon_lower_bound(guesses, privacy.delta),
        p_value=p_value(guesses, epsilon, privacy.delta),
        ceiling=ceiling(guesses.made),
        noise=noise_test(np.concatenate([quiet(vector) for vector in left]), variance),
        reach=reach_test(scores, included, mechanism, releases),
        seed=seed,
        self_test=self_test,
        cpu_seconds=time.process_time() - started,
    )
