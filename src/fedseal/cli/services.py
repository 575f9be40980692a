"""What programs that stay have in common: their log goes to standard error, a line an event, without anybody's data."""

import logging
import sys


def service_logs() -> None:
    """Log what fedseal has to say from INFO, and of others what is at least a warning. To be called once Flower is
    imported, which sets up a log of its own.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    ours = logging.getLogger("fedseal")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)
    # Flower logs each call as INFO, and one that comes too late for its run as an error.
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
