"""What is audited: a study's plan, or one for whoever has no study at hand."""

from typing import Literal

from fedseal.simulation.simulate import Options, resolve
from fedseal.study import Cohort, Contract, Training


def default_claim() -> Contract:
    """Epsilon 3 at delta 1e-5 for ten rounds of five steps, each of a fifth of the persons."""
    training = Training(rounds=10, local_steps=5, sample_rate=0.2, learning_rate=1.0)
    return Contract(version=1, name="audit", training=training, cohort=Cohort(colluders=1))


def changed_claim(
    claim: Contract,
    *,
    plan: Literal["local", "distributed"] | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    rounds: int | None = None,
) -> Contract:
    """The claim with another plan, promise or number of rounds; None keeps what there is.

    An epsilon turns plan local on where there is none.

    Raises:
        ConfigError: a number is out of range, or the plan does not go with the study.
    """
    return resolve(claim, Options(plan=plan, epsilon=epsilon, delta=delta, rounds=rounds))
