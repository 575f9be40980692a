"""All fuzz targets: the fast tests and `bench/fuzz.py` try the same."""

from support.fuzz_files import FILES, HTTP, VERIFY
from support.fuzz_sites import CONSOLE, ENROLMENT, ISOLATION
from support.fuzz_wire import LOG, WIRE

TARGETS = (*WIRE, *LOG, *FILES, *VERIFY, *HTTP, *ENROLMENT, *ISOLATION, *CONSOLE)
