"""Every parser that faces a peer or an operator's file, tried for as long as one likes, guided by coverage.

    PYTHONPATH=src:tests:compliance/verify python bench/fuzz.py --seconds 60 --out bench/results/fuzz.json

The targets and what they promise are those of `tests/fuzz`. With atheris (Apache-2.0; Linux, pip install atheris) the
code is instrumented, and inputs that reach something new are kept and changed again; half of all new inputs are made by
the changes of `tests/support/fuzzing.py`, half by libFuzzer's own. Without it, or with `--plain`, these changes alone
make inputs from the corpus, and nothing is said of coverage. Every target runs in a process of its own with a limit on
its memory; an input that breaks the promise is written into the results. No seconds are compared.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from support.fuzzing import Target, changed, judge
from timing import machine

# What a target may take, with the libraries that it loads.
MOST_MEMORY = 4 << 30
# An input that takes longer than this is a fault: of 64 KiB none has to.
LONGEST = 5
ROOT = Path(__file__).resolve().parents[1]


def plain(target: Target, seconds: float, seed: int) -> dict[str, Any]:
    """Change valid inputs for so long."""
    corpus, random = target.corpus(), Random(seed)  # noqa: S311
    runs = taken = 0
    slowest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        raw = changed(random, corpus)
        begun = time.process_time()
        try:
            taken += judge(target, raw)
        # Whatever is not named is what is looked for.
        except Exception as error:  # noqa: BLE001
            return {"runs": runs, "crash": f"{type(error).__name__}: {error}"[:200], "input": raw[:4096].hex()}
        slowest = max(slowest, time.process_time() - begun)
        runs += 1
    return {"runs": runs, "taken": taken, "slowest_seconds": round(slowest, 4), "crash": None}


def guided(target: Target, seconds: float, seed: int, folder: Path) -> None:
    """Let atheris run one target in this process, which ends with it."""
    import atheris

    corpus = list(target.corpus())
    seeds = folder / "corpus"
    seeds.mkdir()
    for number, raw in enumerate(corpus):
        (seeds / f"{number:04d}").write_bytes(raw)

    def once(raw: bytes) -> None:
        judge(target, raw)

    def mutate(raw: bytes, most: int, number: int) -> bytes:
        random = Random(number)  # noqa: S311
        if number % 2:
            return bytes(atheris.Mutate(raw, most))
        return changed(random, [raw, random.choice(corpus)])[:most]

    options = [
        sys.argv[0],
        f"-max_total_time={int(seconds)}",
        f"-seed={seed}",
        "-max_len=65536",
        f"-timeout={LONGEST}",
        f"-rss_limit_mb={MOST_MEMORY >> 20}",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/",
        str(seeds),
    ]
    atheris.Setup(options, once, custom_mutator=mutate, internal_libfuzzer=True)
    atheris.Fuzz()


def read_log(text: str) -> dict[str, Any]:
    """What libFuzzer says of a run: executions, edges at the start and at the end, inputs kept."""
    edges = [int(n) for n in re.findall(r"cov: (\d+)", text)]
    kept = re.findall(r"corp: (\d+)/", text)
    runs = re.search(r"stat::number_of_executed_units:\s+(\d+)", text)
    slowest = re.search(r"stat::slowest_unit_time_sec:\s+(\d+)", text)
    peak = re.search(r"stat::peak_rss_mb:\s+(\d+)", text)
    return {
        "runs": int(runs[1]) if runs else None,
        "edges_of_the_corpus": edges[0] if edges else None,
        "edges": edges[-1] if edges else None,
        "kept": int(kept[-1]) if kept else None,
        "slowest_seconds": int(slowest[1]) if slowest else None,
        "peak_mb": int(peak[1]) if peak else None,
    }


def run(target: Target, seconds: float, seed: int, *, use_atheris: bool) -> dict[str, Any]:
    """One target in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, said = Path(temporary), Path(temporary) / "said"
        child = os.fork()
        if child == 0:
            # libFuzzer ends its process itself; nothing of this one's is to be cleaned up there.
            try:
                _child(target, seconds, seed, folder, said, use_atheris=use_atheris)
            finally:
                os._exit(3)
        status = _waited(child, seconds * 10 + 300)
        text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
        if not use_atheris:
            found: dict[str, Any] = json.loads((folder / "found").read_text()) if (folder / "found").exists() else {}
            return found or {"runs": 0, "crash": f"exit {status}: {text[-200:]}"}
        found = read_log(text)
        artifacts = [path for path in folder.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
        found["crash"] = None
        if status or artifacts:
            place = re.search(r"=== Uncaught Python exception: ===\n(.*)", text)
            found["crash"] = place[1][:200] if place else f"exit {status}: {text[-200:]}"
            found["input"] = artifacts[0].read_bytes()[:4096].hex() if artifacts else None
        return found


def _child(target: Target, seconds: float, seed: int, folder: Path, said: Path, *, use_atheris: bool) -> None:
    handle = os.open(said, os.O_CREAT | os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if use_atheris:
        guided(target, seconds, seed, folder)
        return
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    (folder / "found").write_text(json.dumps(plain(target, seconds, seed)), encoding="utf-8")


def _waited(child: int, seconds: float) -> int:
    """How a process ended; killed if it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -9


def imported(*, use_atheris: bool) -> dict[str, Target]:
    """All targets by name; with atheris their code is instrumented, which takes a minute."""
    with contextlib.ExitStack() as stack:
        if use_atheris:
            import atheris

            stack.enter_context(
                atheris.instrument_imports(include=["fedseal", "fedseal_verify"], enable_loader_override=False)
            )
        from support.fuzz_targets import TARGETS
    return {target.name: target for target in TARGETS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all targets, or those that are named, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "fuzz.json")
    parser.add_argument("--only", nargs="*", default=[], help="targets")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    asked = parser.parse_args(arguments)
    use_atheris = not asked.plain and importlib.util.find_spec("atheris") is not None
    targets = imported(use_atheris=use_atheris)
    for name in asked.only:
        if name not in targets:
            parser.error(f"no target {name}; there are {', '.join(targets)}")
    found: dict[str, Any] = {}
    for name in asked.only or targets:
        found[name] = run(targets[name], asked.seconds, asked.seed, use_atheris=use_atheris)
        print(name, json.dumps({k: v for k, v in found[name].items() if k != "input"}), flush=True)
        result = {
            "machine": machine(),
            "how": "atheris" if use_atheris else "changes of valid inputs",
            "seconds_of_each": asked.seconds,
            "seed": asked.seed,
            "niceness": os.nice(0),
            "targets": found,
        }
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    broken = [name for name, one in found.items() if one.get("crash")]
    inputs = sum(one.get("runs") or 0 for one in found.values())
    print(f"{len(found)} targets, {inputs} inputs, broken: {broken or 'none'}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
