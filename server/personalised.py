"""The end of a run whose sites fine-tune: the final model goes to every site, and the mean of what came of it comes
back.

Each site takes some steps from the final model on its own training persons, keeps the model that comes of it, and
measures that on its own test persons. What leaves is one sealed sum of declared metrics: an evaluation, as any other.
"""

from collections.abc import Mapping

from flwr.app import Array, ArrayRecord, ConfigRecord

from fedseal.privacy.plan import NoPrivacy
from fedseal.privacy.releases import EVALUATION, REGISTRY
from fedseal.server.contents import Arrays, TaskSetting
from fedseal.server.grid import AveragingGrid
from fedseal.server.means import Means, means_of
from fedseal.study import Training

# As the sites name them; neither side imports the other.
FINETUNE_STEPS, FINETUNE_RATE = "finetune-steps", "finetune-rate"


def fine_tuned(
    grid: AveragingGrid, training: Training, model: Arrays, settings: Mapping[str, TaskSetting], retries: int
) -> Means:
    """Let every site fine-tune the final model; the means of their metrics over all test persons.

    Args:
        grid: the run's.
        training: the study's; ``personal_steps`` steps of ``personal_learning_rate``.
        model: the final one.
        settings: what sites are told in every round.
        retries: how many further attempts there may be.

    Raises:
        RoundAborted: too few sites answered, or their policies refuse. Nothing was released.
    """
    config = ConfigRecord(dict(settings))
    config[FINETUNE_STEPS] = training.local_steps if training.personal_steps is None else training.personal_steps
    config[FINETUNE_RATE] = training.personal_learning_rate or training.learning_rate
    arrays = ArrayRecord({name: Array(array) for name, array in model.items()})
    finished = grid.release(
        REGISTRY[EVALUATION],
        list(grid.get_node_ids()),
        task={"arrays": arrays, "config": config},
        shapes={},
        plan=NoPrivacy(releases=1, retries=retries),
        fl_round=training.rounds,
        timeout=None,
    )
    return means_of(finished.total)
