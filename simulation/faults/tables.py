"""`[[fault]]`: one thing that goes wrong in a scenario, where, when and how often."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedseal.config import Frozen

FaultStage = Literal["before_round", "advertise", "share_keys", "masked_input", "after_train", "consistency", "unmask"]
FaultKind = Literal["dropout", "lost", "slow", "byzantine", "restored_backup", "server_crash"]
AT_PATTERN = r"^(round:[1-9]\d{0,8}|rounds:[1-9]\d{0,8}-[1-9]\d{0,8})$"
ATTACK_PATTERN = r"^(sign_flip|label_flip|nan|replay|wrong_share|scale:-?\d+(\.\d+)?)$"
_NEED_AT = ("server_crash", "restored_backup")


class Fault(Frozen):
    """One fault.

    ``kind``: "dropout", a site falls silent at a stage and stays so for the round; "lost", its answer at a stage does
    not arrive, and later ones do; "slow", its answer at a stage comes ``seconds`` late; "byzantine", it does what
    ``attack`` says; "restored_backup", its store is that of before ``backup`` again; "server_crash", the server's
    process ends and is started anew.

    ``stage``: one of the five exchanges, or "before_round" (as "advertise") or "after_train" (trained and charged, but
    silent from then on).

    ``where``: names of sites; all of them if not given. ``prob``: each of those is struck with this probability in a
    round; ``count``: so many of those, drawn anew every round. ``at``: "round:7" or "rounds:3-9"; every round if not
    given.

    ``attack``: "sign_flip", "scale:10" (the update, times so much) and "nan" change what a site has trained before it
    is bounded; "label_flip" changes what it trains on; "replay" answers at ``stage`` what was answered in an earlier
    round; "wrong_share" deals shares of other secrets at stage "share_keys", and opens other shares than it was dealt
    at "unmask".
    """

    kind: FaultKind = "dropout"
    stage: FaultStage | None = None
    where: tuple[str, ...] | None = None
    prob: Annotated[float, Field(gt=0, le=1)] | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    at: Annotated[str, Field(pattern=AT_PATTERN)] | None = None
    attack: Annotated[str, Field(pattern=ATTACK_PATTERN)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    backup: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _makes_sense(self) -> "Fault":
        if (self.attack is not None) != (self.kind == "byzantine"):
            raise ValueError('kind "byzantine", and no other, has an attack')
        if (self.seconds is not None) != (self.kind == "slow"):
            raise ValueError('kind "slow", and no other, says by how many seconds')
        if self.kind in _NEED_AT and self.at is None:
            raise ValueError(f'kind "{self.kind}" has to say when: at = "round:7"')
        if self.prob is not None and self.count is not None:
            raise ValueError("prob and count exclude each other")
        if self.kind == "server_crash" and (self.where, self.prob, self.count) != (None, None, None):
            raise ValueError("a server has no where, prob or count")
        if self.kind != "server_crash" and (self.where, self.prob, self.count) == (None, None, None):
            raise ValueError("say which sites: where, prob or count")
        first, last = self.rounds
        if last is not None and last < first:
            raise ValueError(f"rounds {first} to {last} are none")
        if self.kind == "restored_backup" and self.backup > first:
            raise ValueError("a backup is made before it is put back")
        if self.attack == "wrong_share" and self.stage not in (None, "share_keys", "unmask"):
            raise ValueError('shares are dealt at "share_keys" and opened at "unmask"')
        return self

    @property
    def rounds(self) -> tuple[int, int | None]:
        """The first and the last round in which it may happen; None for no last one."""
        if self.at is None:
            return 1, None
        first, _, last = self.at.partition(":")[2].partition("-")
        return int(first), int(last or first)
