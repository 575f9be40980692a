"""A process that appends to a log until it is killed or done, and prints each size once it is on disk.

python appender.py DATABASE NAME BATCHES
"""

import sys
from pathlib import Path

from support.keys import SERVER
from support.logs import ORIGIN

from fedseal.compliance.log.database import open_database, transaction

BATCH = 3


def main(path: Path, name: str, batches: int) -> None:
    """Batches of three leaves, each with a signed checkpoint."""
    engine = open_database(path)
    for number in range(batches):
        with transaction(engine, ORIGIN) as log:
            log.append([f"{name} {number} {i}".encode() for i in range(BATCH)])
            log.sign_checkpoint(SERVER)
            size = log.size
        print(size, flush=True)
    engine.dispose()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
