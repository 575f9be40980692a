"""Names of the kinds of privacy plans, as people write them."""

from typing import Literal

PlanName = Literal["none", "local", "distributed", "client", "histogram"]
