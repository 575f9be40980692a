"""What a site keeps of a run from round to round, by name: for whoever has its store, which knows no torch.

The strategies' own settings stand here too, as the server names them; neither side imports the other.
"""

from collections.abc import Iterable, Mapping

from fedseal.errors import ConfigError
from fedseal.privacy.transaction import PERSONAL_MODEL

# SCAFFOLD: the server's control variate travels beside the model, a site keeps its own.
VARIATE_PREFIX = "control/"
SITES, ROUNDS = "control-sites", "control-rounds"
CONTROL_VARIATE = "control-variate"

DITTO_LAMBDA = "ditto-lambda"
FINETUNE_STEPS = "finetune-steps"
NORMS, LAYERS = "personal-norms", "personal-layers"


def memory_name(received: Iterable[str], settings: Mapping[str, object]) -> str | None:
    """Under which name a site keeps what its strategy remembers between rounds; None if it remembers nothing.

    Args:
        received: names of the arrays that came.
        settings: the task's.
    """
    if any(name.startswith(VARIATE_PREFIX) for name in received):
        return CONTROL_VARIATE
    return PERSONAL_MODEL if DITTO_LAMBDA in settings or some_stays(settings) else None


def some_stays(settings: Mapping[str, object]) -> bool:
    """Whether a part of the model stays at the sites."""
    return bool(settings.get(NORMS, False)) or isinstance(settings.get(LAYERS), list)


def last_counted(settings: Mapping[str, object], site: int) -> int:
    """The last round whose sum this site's vector was in, by the task's settings; 0 if there was none."""
    sites, rounds = settings.get(SITES), settings.get(ROUNDS)
    if not isinstance(sites, list) or not isinstance(rounds, list) or len(sites) != len(rounds):
        raise ConfigError("the task's settings do not say which sites were in which round's sum")
    known = {number: last for number, last in zip(sites, rounds, strict=True) if isinstance(last, int)}
    return known.get(site, 0)
