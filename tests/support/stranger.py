"""The study's process with a study that means no good: all is real but what is computed; no torch, no Flower.

What it does stands in the request's settings.
"""

import ctypes
import json
import mmap
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from support.deeds import Places, tried

from fedseal.client.isolation.child import main
from fedseal.client.isolation.messages import Answered, ArrayPart, Asked, Load, Value
from fedseal.errors import ConfigError

Array = NDArray[Any]


class Stranger:
    """Stands for `LoadedStudy`."""

    def __init__(self, load: Load, threads: int) -> None:
        self.loaded = load
        if load.task == "bad:Data":
            raise ValueError("nobody's name")

    def train(self, asked: Asked) -> Answered:
        settings = {value.name: [item.decode() for item in value.items] for value in asked.settings}
        (what,) = settings["do"]
        if what == "deeds":
            places = Places(**json.loads(settings["places"][0]))
            raise ConfigError(json.dumps(tried(places, settings["names"])))
        if what == "print":
            print("a person's name\x1b[2J", "x" * 5000)
        if what == "behave":
            return Answered(asked.arrays, (Value("num-examples", 1, False, (b"10",)),), None, False, None, None)
        if what == "raise":
            raise ValueError("a person's name")
        return ANSWERS[what]() if what in ANSWERS else stubborn(what)

    evaluate = train


def stubborn(what: str) -> NoReturn:
    """What does not end by itself."""
    match what:
        case "hang":
            time.sleep(1000)
        case "print for ever":
            while True:
                print("x" * 10000)
        case "exit":
            os._exit(3)
        case "crash":
            # A null pointer.
            ctypes.string_at(0)
        case "shut up":
            os.closerange(0, 1000)
            time.sleep(1000)
        case "grow":
            kept = []
            while True:
                # Shared, so that no limit on private memory sees it.
                kept.append(mmap.mmap(-1, 1 << 22))
                kept[-1].write(bytes(1 << 22))
    raise SystemExit(what)


def answer(array: Array) -> Answered:
    part = ArrayPart("v", array.dtype.str, array.shape, array.tobytes())
    return Answered((part,), None, None, False, None, None)


ANSWERS: dict[str, Callable[[], Answered]] = {
    "answer": lambda: answer(np.arange(3, dtype=np.float32)),
    "print": lambda: answer(np.zeros(1)),
    "number": lambda: answer(np.array([os.getpid()])),
    "huge": lambda: answer(np.zeros(1 << 20)),
    "object": lambda: Answered((ArrayPart("v", "|O", (1,), bytes(8)),), None, None, False, None, None),
    "shape": lambda: Answered((ArrayPart("v", "<f4", (1 << 62, 0), b""),), None, None, False, None, None),
    "metric": lambda: Answered((), (Value("m", 3, False, (b"text",)),), None, False, None, None),
    "memory": lambda: Answered((), None, None, False, b"keep this", None),
}


def stand_in() -> None:
    """Take the place of what loads a study."""
    loaded = ModuleType("fedseal.client.isolation.loaded")
    vars(loaded)["LoadedStudy"] = Stranger
    sys.modules[loaded.__name__] = loaded


if __name__ == "__main__":
    stand_in()
    main()
