"""Make `pretrained.safetensors`: the encoder reads public leaflets.

It learns to guess masked words, and to say at its first place by which of three keywords a leaflet is sorted. No
message of a patient is read, and no leaflet says what the clinics want to know.

    python examples/text-lora/pretrain.py        # prints the file's digest, which task.py names

Its vocabulary is that of the leaflets. One that was collected at the sites would be a release of its own.
"""

import argparse
import hashlib
from pathlib import Path

import safetensors.torch
import torch
from messages import leaflets
from torch import Tensor, nn
from transformer import MASK, SPECIAL, Encoder, Shape, numbers

SEED, LEAFLETS, STEPS, BATCH, MASKED, RATE = 5, 20_000, 1200, 128, 0.15, 3e-3
LENGTH = 36


def main() -> None:
    """Pre-train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("pretrained.safetensors"))
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    texts, keywords = leaflets(LEAFLETS)
    vocabulary = [*SPECIAL, *sorted({word for text in texts for word in text.split()})]
    shape = Shape(len(vocabulary), LENGTH)
    encoder = trained(numbers(texts, vocabulary, LENGTH), torch.from_numpy(keywords).float(), shape, arguments.steps)
    found = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    raw = safetensors.torch.save(found, {"vocabulary": " ".join(vocabulary)})
    arguments.out.write_bytes(raw)
    print(f"{arguments.out}: {len(raw)} bytes, SHA-256 {hashlib.sha256(raw).hexdigest()}")


def trained(texts: Tensor, keywords: Tensor, shape: Shape, steps: int) -> Encoder:
    """An encoder; masked words are guessed by its own word vectors, keywords by a layer that is thrown away."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    encoder, sorting, draw = Encoder(shape), nn.Linear(shape.width, 3), torch.Generator().manual_seed(SEED)
    nn.init.normal_(encoder.word.weight, std=0.1)
    nn.init.normal_(encoder.place.weight, std=0.1)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *sorting.parameters()], lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(texts), (BATCH,), generator=draw)
        words = texts[chosen]
        hidden = (torch.rand(words.shape, generator=draw) < MASKED) & (words > MASK)
        state = encoder(words.masked_fill(hidden, MASK))
        guessed = nn.functional.cross_entropy(state[hidden] @ encoder.word.weight.T, words[hidden])
        sorted_by = nn.functional.binary_cross_entropy_with_logits(sorting(state[:, 0]), keywords[chosen])
        optimizer.zero_grad()
        (guessed + sorted_by).backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps - 1:
            print(
                f"step {step + 1} of {steps}: words {guessed.item():.3f}, keywords {sorted_by.item():.3f}", flush=True
            )
    return encoder


if __name__ == "__main__":
    main()
