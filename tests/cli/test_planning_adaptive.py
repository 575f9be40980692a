"""What `fedseal privacy plan` says of a clip norm that adapts."""

import json
from typing import Any

import pytest
from rich.console import Console
from support.studies import tiny

from fedseal.cli.plan_numbers import as_numbers
from fedseal.cli.plan_tables import adapting, show_outlook
from fedseal.cli.planning import Outlook, look_ahead
from fedseal.privacy.plan import AdaptiveSkellam
from fedseal.privacy.shared_planning import Extent


def outlook(**privacy: Any) -> Outlook:
    study = tiny(
        privacy={"plan": "distributed", "epsilon": 3.0, "retries": 0} | privacy,
        training={"rounds": 4},
        cohort={"minimum": 3, "colluders": 1, "largest_site": 200},
    )
    return look_ahead(study.contract, Extent(4, 5))


@pytest.fixture(scope="module")
def adaptive() -> Outlook:
    return outlook(adaptive_clip={"lowest": 0.02, "highest": 30.0})


def test_the_tables_say_what_it_follows_and_how_noisy_that_is(adaptive: Outlook) -> None:
    console = Console(width=200)
    with console.capture() as shown:
        show_outlook(console, adaptive)
    text, plan = shown.get(), adaptive.plans.update
    assert isinstance(plan, AdaptiveSkellam)
    assert "1, adapts" in text
    assert "follows the 0.5 quantile of the norms, from 0.02 to 30" in text
    assert f"noise of {plan.count_deviation:.3g} persons" in " ".join(text.split())
    # The twin: a fixed one says nothing of it.
    assert not adapting(plan.vector)


def test_the_numbers_have_the_whole_plan(adaptive: Outlook) -> None:
    found = json.loads(json.dumps(as_numbers(adaptive, None, None), allow_nan=False))["study"]
    (plan,) = found["plans"]
    assert plan["kind"] == "distributed"
    assert (plan["lowest"], plan["highest"], plan["vector"]["clip_norm"]) == (0.02, 30.0, 1.0)
    assert plan["count_deviation"] == pytest.approx(adaptive.plans.update.count_deviation)  # type: ignore[union-attr]
    # All that is enforced is the promise, and other noise is planned for too.
    assert found["epsilon_enforced"] == pytest.approx(3.0, abs=0.01)
    own, less, more = found["neighbours"][:3]
    assert less["epsilon"] > own["epsilon"] > more["epsilon"]
    assert own["needed"] == pytest.approx(plan["noise_multiplier"])
