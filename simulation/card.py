"""The model card of a private evaluation in the schema of result.json."""

from dataclasses import asdict

from fedseal.privacy.inference.card import Card, model_card
from fedseal.privacy.inference.evaluation import Estimate
from fedseal.privacy.inference.tally import Tally
from fedseal.simulation import result as schema
from fedseal.study import Evaluation


def card_entry(tally: Tally, evaluation: Evaluation) -> schema.Card | None:
    """The card in the schema; None if the release has no table of scores."""
    found = model_card(tally, evaluation)
    return None if found is None else _card(found)


def _card(card: Card) -> schema.Card:
    groups = card.subgroups
    return schema.Card(
        reliability=[
            schema.Reliability(
                low=row.low,
                high=row.high,
                persons=_interval(row.persons),
                score=_interval(row.score),
                positives=_interval(row.positives),
            )
            for row in card.reliability
        ],
        thresholds=[
            schema.Threshold(
                score=row.score,
                selection_rate=_interval(row.selection_rate),
                tpr=_interval(row.tpr),
                fpr=_interval(row.fpr),
            )
            for row in card.thresholds
        ],
        conformal=None if card.conformal is None else schema.Conformal.model_validate(asdict(card.conformal)),
        recalibration=None
        if card.recalibration is None
        else schema.Recalibration.model_validate(asdict(card.recalibration)),
        subgroups=None
        if groups is None
        else schema.Subgroups(
            attribute=groups.attribute,
            smallest=groups.smallest,
            groups={
                group.name: schema.Group(
                    hidden=group.hidden, estimates={name: _interval(e) for name, e in group.estimates.items()}
                )
                for group in groups.groups
            },
            gaps={name: _interval(e) for name, e in groups.gaps.items()},
        ),
    )


def _interval(estimate: Estimate) -> schema.Interval:
    return schema.Interval(value=estimate.value, low=estimate.low, high=estimate.high)
