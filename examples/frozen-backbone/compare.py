"""A head beside full training, each without a promise and under local differential privacy.

    python examples/frozen-backbone/compare.py               # prints the table of the README
    python examples/frozen-backbone/compare.py --choose      # how the learning rates were chosen

Rates were chosen on validation persons under a seed of their own; the table is of test persons and other seeds.
"""

from pathlib import Path

from fedseal.simulation.arms import Arm, compare
from fedseal.study import load_study

HERE = Path(__file__).resolve().parent
RATES = {
    Arm("head", "task:Head", "none", learning_rate=0.2): (0.1, 0.2, 0.5),
    Arm("everything", "task:Everything", "none", learning_rate=0.1): (0.03, 0.1, 0.3),
    Arm("head", "task:Head", "local", learning_rate=1.0, clip_norm=0.5): (0.3, 1.0, 2.0),
    Arm("everything", "task:Everything", "local", learning_rate=0.3, clip_norm=0.5): (0.1, 0.3, 1.0),
}

if __name__ == "__main__":
    compare(load_study(HERE), list(RATES), RATES, Path("runs") / "frozen-backbone-compared")
