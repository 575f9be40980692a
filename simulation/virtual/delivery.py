"""The real protocol under virtual time: who is late or away in a round's timing is so in `LocalGrid`, too.

Messages are plain Flower ones, whose names only the grid may know here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedseal.privacy.secagg.header import Header
from fedseal.simulation.exchanges import Exchanges
from fedseal.simulation.grid import Deliver, answer_of
from fedseal.simulation.virtual.rounds import RoundTiming


def timed_delivery(
    timing_of: Callable[[Header], RoundTiming], places: Mapping[int, int], deliver: Deliver = answer_of
) -> Deliver:
    """A way to deliver messages under which a real round has the answers that its timing has.

    A site that was away or silent at an exchange does not get the request. One that was late gets it, does its work
    and is charged for it, and its answer is dropped.

    Args:
        timing_of: the timing of an attempt, asked once for each.
        places: by Flower node id the site's number in the timing.
        deliver: how messages are delivered otherwise.
    """
    exchanges, timings = Exchanges(), dict[bytes, RoundTiming]()

    def timed(app: Any, message: Any, context: Any) -> Any:
        exchange = exchanges.read(message)
        if exchange is None:
            return deliver(app, message, context)
        key = exchange.header.digest()
        if key not in timings:
            timings[key] = timing_of(exchange.header)
        stages, site = timings[key].stages, places[context.node_id]
        if exchange.stage >= len(stages):
            # The timing ended before; the real round will have, too.
            return None
        stage = stages[exchange.stage]
        if not np.isin(site, stage.answered) and not np.isin(site, stage.late):
            return None
        answer = deliver(app, message, context)
        return answer if np.isin(site, stage.answered) else None

    return timed
