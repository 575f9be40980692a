"""Protocol SA1: secure aggregation on the complete graph as two pure state machines over frozen messages.

No I/O, no clock and no hidden randomness: time enters as an event that closes a stage, randomness as an argument.
docs/protocol.md describes the protocol; `table.py` holds the legal (state, event) pairs from which its diagram and
the exhaustive test are drawn.
"""
