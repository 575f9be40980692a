"""A small transformer whose frozen weights are public, and the low-rank adapters that are trained beside them.

Only layers whose per-sample gradients Opacus has: Linear, LayerNorm, Embedding. Attention is written out, because what
is inside `nn.MultiheadAttention` is no layer of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PADDING, UNKNOWN, FIRST, MASK = 0, 1, 2, 3
SPECIAL = ("<padding>", "<unknown>", "<first>", "<mask>")


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a transformer is. ``length`` is the number of words that it reads, the rest is cut off."""

    words: int
    length: int = 36
    width: int = 48
    heads: int = 4
    blocks: int = 2


class Adapted(nn.Module):
    """A linear layer W x, with a low-rank adapter beside it: W x + B A x * alpha / rank (Hu et al., LoRA, ICLR 2022).

    B begins at zero, so a new adapter changes nothing. With rank 0 there is none.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float = 8.0) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs, bias=False)
        self.down = nn.Linear(inputs, rank, bias=False) if rank else None
        self.up = nn.Linear(rank, outputs, bias=False) if rank else None
        self.scale = alpha / rank if rank else 0.0
        if self.up is not None:
            nn.init.zeros_(self.up.weight)

    def forward(self, values: Tensor) -> Tensor:
        plain: Tensor = self.base(values)
        if self.down is None or self.up is None:
            return plain
        return plain + self.up(self.down(values)) * self.scale


class Block(nn.Module):
    """Self-attention and two layers, each normalised before and added to what came in. Queries and values adapt."""

    def __init__(self, shape: Shape, rank: int) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.value = Adapted(width, width, rank), Adapted(width, width, rank)
        self.key, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, state: Tensor, padded: Tensor) -> Tensor:
        """State of shape (batch, length, width); ``padded`` (batch, length) is true where there is no word."""
        normal = self.before(state)
        query, key, value = (self._split(layer(normal)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        weights = torch.softmax(scores.masked_fill(padded[:, None, None, :], -1e9), dim=3)
        seen = (weights @ value).transpose(1, 2).flatten(2)
        state = state + self.out(seen)
        return state + self.narrow(torch.relu(self.wide(self.between(state))))

    def _split(self, values: Tensor) -> Tensor:
        """(batch, length, width) as (batch, heads, length, width / heads)."""
        return values.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Encoder(nn.Module):
    """Word numbers (batch, length) to one vector a word, (batch, length, width)."""

    def __init__(self, shape: Shape, rank: int = 0) -> None:
        super().__init__()
        self.word = nn.Embedding(shape.words, shape.width)
        self.place = nn.Embedding(shape.length, shape.width)
        self.blocks = nn.ModuleList(Block(shape, rank) for _ in range(shape.blocks))
        self.after = nn.LayerNorm(shape.width)

    def forward(self, words: Tensor) -> Tensor:
        padded = words == PADDING
        # A place for each person, also if it is the same: Opacus wants persons first.
        places = torch.arange(words.shape[1], device=words.device).expand_as(words)
        state = self.word(words) + self.place(places)
        for block in self.blocks:
            state = block(state, padded)
        normal: Tensor = self.after(state)
        return normal


class Classifier(nn.Module):
    """One number a person: a head on what the encoder says at the first place. The head begins at zero."""

    def __init__(self, shape: Shape, rank: int = 0) -> None:
        super().__init__()
        self.encoder = Encoder(shape, rank)
        self.head = nn.Linear(shape.width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, words: Tensor) -> Tensor:
        answer: Tensor = self.head(self.encoder(words)[:, 0]).squeeze(1)
        return answer


def numbers(texts: Sequence[str], vocabulary: Sequence[str], length: int) -> Tensor:
    """Texts as word numbers, shape (texts, length): a mark for the first place, then words, cut off or padded.

    Words that the vocabulary has not are all one.
    """
    places = {word: i for i, word in enumerate(vocabulary)}
    rows = torch.full((len(texts), length), PADDING, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        found = [FIRST, *(places.get(word, UNKNOWN) for word in text.lower().split())][:length]
        row[: len(found)] = torch.tensor(found, dtype=torch.long)
    return rows
