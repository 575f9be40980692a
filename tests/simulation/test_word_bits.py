"""Numbers of fewer than 32 bits in a study's sealed sums: fewer bytes, the same model but for their coarseness."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file
from support.studies import tiny

from fedseal.simulation.simulate import Options, Progress, simulate

PLAN = {"plan": "none"}


@pytest.mark.slow
def test_twenty_bits_are_fewer_bytes_and_nearly_the_same_model(tmp_path: Path, progress: Progress) -> None:
    models = {}
    for bits in (12, 20, 32):
        study = tiny(training={"word_bits": bits, "update_range": 5.0}, privacy=PLAN, cohort={"largest_site": 100})
        found = simulate(study, Options(baselines=False), tmp_path / str(bits), progress)
        models[bits] = load_file(found.folder / "model.safetensors")
    apart = {
        bits: max(float(np.abs(models[bits][name] - models[32][name]).max()) for name in models[32])
        for bits in (12, 20)
    }
    # Three rounds of four sites; a unit of a 20-bit sum is 4 * 5 / 2^19.
    assert 0 < apart[20] < 3 * 4 * 4 * 5 / 2**19
    # The twin: so coarse that the difference would not pass the line above.
    assert apart[12] > 3 * 4 * 4 * 5 / 2**19


@pytest.mark.parametrize("bits", [11, 33, 64])
def test_only_sizes_that_there_are(bits: int) -> None:
    with pytest.raises(ValidationError, match="word_bits"):
        tiny(training={"word_bits": bits})


def test_plans_with_shared_noise_choose_for_themselves() -> None:
    with pytest.raises(ValidationError, match="leave word_bits out"):
        tiny(training={"word_bits": 20}, privacy={"plan": "distributed"})
