"""Make `pretrained.safetensors`: the backbone learns to tell 0, 1, 2, 3 and 4 apart.

    python examples/frozen-backbone/pretrain.py        # prints the file's digest, which task.py names

It never sees a 5, 6, 7, 8 or 9. The head that it learns with is thrown away.
"""

import argparse
import hashlib
from pathlib import Path

import safetensors.torch
import torch
from backbone import Backbone, Classifier
from images import BRIGHTEST, LABEL, PIXELS, PUBLIC, images
from torch import Tensor, nn

SEED, STEPS, BATCH, RATE = 5, 800, 64, 3e-3


def main() -> None:
    """Pre-train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("pretrained.safetensors"))
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    table = images(PUBLIC)
    pixels = torch.tensor(table[PIXELS].to_numpy(dtype="float32")).reshape(-1, 1, 8, 8) / BRIGHTEST
    backbone = trained(pixels, torch.tensor(table[LABEL].to_numpy()), arguments.steps)
    raw = safetensors.torch.save({name: tensor.contiguous() for name, tensor in backbone.state_dict().items()})
    arguments.out.write_bytes(raw)
    print(f"{arguments.out}: {len(raw)} bytes, SHA-256 {hashlib.sha256(raw).hexdigest()}")


def trained(pixels: Tensor, digits: Tensor, steps: int) -> Backbone:
    """A backbone that tells the public digits apart, each image moved by up to a pixel."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    model, draw = Classifier(len(PUBLIC)), torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(pixels), (BATCH,), generator=draw)
        down, right = torch.randint(-1, 2, (2,), generator=draw).tolist()
        moved = torch.roll(pixels[chosen], (down, right), (2, 3))
        loss = nn.functional.cross_entropy(model(moved), digits[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps - 1:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    return model.backbone


if __name__ == "__main__":
    main()
