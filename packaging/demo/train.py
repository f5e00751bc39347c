"""Make the demo model: corpus, vocabulary, training on the CPU, and the GGUF file. One command does it all."""

from __future__ import annotations

import argparse
import hashlib
import math
import random
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from copying import copies
from corpus import Document, documents
from export import write_gguf
from model import DemoModel, Shape
from optimizer import Optimizer
from torch import Tensor
from torch.nn import functional
from vocabulary import END_OF_TEXT, IM_END, SPECIALS, encoded, prompt_of, train_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

PROMPTS = (
    "hello",
    "tell me a story about a fox",
    "what is inferd?",
    "who are you",
    "count to ten",
    "count from 3 to 12",
    "thank you, what can you do?",
    "say golden apple Tom",
    "what is the capital of France?",
)
# The vocabulary stays the same whatever the seed, or weights could not be resumed.
VOCABULARY_SEED = 1


# Most of the time short rows; the last part with rows as long as the context, so that late positions work too.
SHORT, SHORT_ROWS = 512, 4
LONG, LONG_ROWS = 2048, 1
LONG_SHARE = 1 / 8
# First of all it learns to look back (copying.py).
COPY, COPY_ROWS = 64, 32
COPY_SHARE = 1 / 10


@dataclass(frozen=True, slots=True)
class Limit:
    """When to stop: after so many steps, or after so many minutes."""

    n_steps: int
    minutes: float | None

    def done(self, step: int, elapsed_s: float) -> float:
        return step / self.n_steps if self.minutes is None else elapsed_s / (60 * self.minutes)


def packed(tokenizer: Tokenizer, length: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of `length` + 1 ids that begin with a whole conversation; loss weights beside them."""
    pad = tokenizer.token_to_id(END_OF_TEXT)
    source = (encoded(tokenizer, turns) for turns in documents(seed, length == LONG))
    room = length + 1
    waiting: list[tuple[list[int], list[float]]] = []
    while True:
        waiting += islice(source, 64 - len(waiting))
        ids: list[int] = []
        weights: list[float] = []
        for index in range(len(waiting) - 1, -1, -1):
            piece, piece_weights = waiting[index]
            if not ids or len(ids) + len(piece) <= room:
                ids += piece
                weights += piece_weights
                del waiting[index]
        missing = max(0, room - len(ids))
        ids, weights = ids[:room] + [pad] * missing, weights[:room] + [0.0] * missing
        yield torch.tensor(ids), torch.tensor(weights)


def copied(tokenizer: Tokenizer, length: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of `length` + 1 ids to learn copying from, and their loss weights."""
    ordinary = range(len(SPECIALS), tokenizer.get_vocab_size())
    for ids, weights in copies(random.Random(seed), ordinary, length + 1):
        yield torch.tensor(ids), torch.tensor(weights)


def learn(model: DemoModel, tokenizer: Tokenizer, limit: Limit, options: argparse.Namespace) -> int:
    """Train until the limit; the number of steps made."""
    optimizer, began, step, done = Optimizer(model, options.peak), time.monotonic(), 0, 0.0
    short, long = (packed(tokenizer, length, options.seed) for length in (SHORT, LONG))
    exercises = copied(tokenizer, COPY, options.seed)
    while done < 1:
        rows, n_rows = (short, SHORT_ROWS) if done < 1 - LONG_SHARE else (long, LONG_ROWS)
        if done < COPY_SHARE and options.resume is None:
            rows, n_rows = exercises, COPY_ROWS
        ids, weights = (torch.stack(column) for column in zip(*islice(rows, n_rows), strict=True))
        loss = loss_of(model, ids, weights)
        loss.backward()
        optimizer.step(pace(step, done))
        step += 1
        elapsed_s = time.monotonic() - began
        done = limit.done(step, elapsed_s)
        if step % 25 == 0:
            print(f"step {step}  {done:.0%}  loss {loss.item():.3f}  {elapsed_s:.0f} s", flush=True)
            if options.keep is not None:
                torch.save(model.state_dict(), options.keep / "state.pt")
    return step


def pace(step: int, done: float) -> float:
    """Warm up, stay, and go down to nothing over the last 60 percent."""
    fall = (1 + math.cos(math.pi * (done - 0.4) / 0.6)) / 2 if done > 0.4 else 1.0
    return min((step + 1) / 40, fall)


def loss_of(model: DemoModel, ids: Tensor, weights: Tensor) -> Tensor:
    hidden, targets, weights = model.hidden(ids[:, :-1]), ids[:, 1:], weights[:, 1:]
    counted = weights > 0
    each = functional.cross_entropy(model.logits(hidden[counted]), targets[counted], reduction="none")
    return (each * weights[counted]).sum() / weights.sum()


def texts(turns: Document) -> list[str]:
    return [text for _, text in turns]


def show(model: DemoModel, tokenizer: Tokenizer) -> None:
    stop = {tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(IM_END)}
    for prompt in PROMPTS:
        answer = model.greedy(tokenizer.encode(prompt_of([("user", prompt)])).ids, stop, 400)
        print(f"--- {prompt}  [{len(answer)} tokens]\n{tokenizer.decode(answer)}", flush=True)


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    sample = islice(documents(VOCABULARY_SEED), 4000)
    tokenizer = train_vocabulary((text for turns in sample for text in texts(turns)), options.vocabulary)
    model = DemoModel(Shape(n_vocab=tokenizer.get_vocab_size()))
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters", flush=True)
    if options.resume is not None:
        model.load_state_dict(torch.load(options.resume))
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(options.keep / "tokenizer.json"))
    began = time.monotonic()
    n_steps = learn(model, tokenizer, Limit(options.steps, options.minutes), options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(options.out, model, tokenizer)
    if options.keep is not None:
        torch.save(model.state_dict(), options.keep / "state.pt")
    digest, size = hashlib.sha256(options.out.read_bytes()).hexdigest(), options.out.stat().st_size
    print(f"{n_steps} steps in {time.monotonic() - began:.0f} s; {size:,} bytes; sha256 {digest}", flush=True)
    show(model, tokenizer)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "backends" / "llama" / "demo.gguf")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4000, help="2,048 tokens each")
    parser.add_argument("--minutes", type=float, help="stop after this time instead, however many steps it was")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--keep", type=Path, help="folder for the torch weights and tokenizer.json, for check.py")
    parser.add_argument(
        "--resume", type=Path, help="weights that --keep has written, to go on from; take another --seed"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
