"""Random tampering with what somebody witnessed, against the tree alone."""

import shutil
from pathlib import Path
from random import Random

import pytest
from support import exported

from fedseal_verify import audit, note
from fedseal_verify.audit import Depth, Earlier
from fedseal_verify.policy import parse_policy

SIZE = 270


def tamper(random: Random, leaves: list[bytes], below: int) -> str:
    """Change something among the first ``below`` leaves; says what."""
    at, other = random.sample(range(below), 2)
    kind = random.choice(["edit", "delete", "insert", "swap", "truncate", "rewrite the tail"])
    match kind:
        case "edit":
            flipped = random.randrange(len(leaves[at]))
            leaves[at] = leaves[at][:flipped] + bytes([leaves[at][flipped] ^ 1]) + leaves[at][flipped + 1 :]
        case "delete":
            del leaves[at]
        case "insert":
            leaves.insert(at, random.choice(leaves) + b" ")
        case "swap":
            leaves[at], leaves[other] = leaves[other], leaves[at]
        case "truncate":
            del leaves[at:]
        case _:
            leaves[at:] = [leaf + b" " for leaf in leaves[at:]]
    return kind


@pytest.mark.slow
def test_random_mutations_below_a_kept_checkpoint(tmp_path: Path) -> None:
    """1000 of them, all signed again by the log and its witnesses, found by the tree alone; no false alarm in 200."""
    random, policy, honest = Random(5), parse_policy(exported.policy().encode()), exported.book(SIZE).leaves
    roots = {size: exported.root(exported.leaf_hashes(honest[:size])) for size in range(2, SIZE + 1)}
    for trial in range(1200):
        size, directory, leaves = random.randint(2, SIZE), tmp_path / str(trial), list(honest)
        before = Earlier("kept.note", note.parse_checkpoint(exported.note(size, roots[size]).encode()))
        kind = "honest" if trial % 6 == 0 else tamper(random, leaves, size)
        exported.write_export(directory, leaves[: random.randint(size, SIZE)] if kind == "honest" else leaves)
        report = audit.verify_log(directory, policy, [before], Depth(events=False))
        assert (report.exit == 0) is (kind == "honest"), (trial, kind)
        shutil.rmtree(directory)
