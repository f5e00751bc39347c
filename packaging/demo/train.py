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


# Tokens of a row, and rows of a step.
SHORT, SHORT_ROWS = 512, 4
LONG, LONG_ROWS = 2048, 1  # as long as the context, so that late positions work too
COPY, COPY_ROWS = 64, 32
LONG_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class Course:
    """Some thousand steps: exercises in copying first, short rows, and at the end long ones."""

    n_steps: int
    peak: float  # the highest learning rate
    stay: float  # the share of the steps for which it stays the highest
    copy_share: float
    answers: bool  # conversations of short answers, not of stories

    def pace(self, step: int) -> float:
        """Warm up, stay, and go down to nothing."""
        angle = math.pi * max(0.0, step / self.n_steps - self.stay) / (1 - self.stay)
        return min((step + 1) / 40, (1 + math.cos(angle)) / 2)


def packed(tokenizer: Tokenizer, length: int, seed: int, answers: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of `length` + 1 ids that begin with a whole conversation; loss weights beside them."""
    pad = tokenizer.token_to_id(END_OF_TEXT)
    source = (encoded(tokenizer, turns) for turns in documents(seed, length == LONG, answers))
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


def learn(model: DemoModel, tokenizer: Tokenizer, course: Course, options: argparse.Namespace) -> None:
    optimizer, began = Optimizer(model, course.peak), time.monotonic()
    short, long = (packed(tokenizer, length, options.seed, course.answers) for length in (SHORT, LONG))
    exercises = copied(tokenizer, COPY, options.seed)
    for step in range(course.n_steps):
        done = step / course.n_steps
        rows, n_rows = (short, SHORT_ROWS) if done < 1 - LONG_SHARE else (long, LONG_ROWS)
        if done < course.copy_share:
            rows, n_rows = exercises, COPY_ROWS
        ids, weights = (torch.stack(column) for column in zip(*islice(rows, n_rows), strict=True))
        loss = loss_of(model, ids, weights)
        loss.backward()
        optimizer.step(course.pace(step))
        if step % 25 == 24:
            print(f"step {step + 1}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s", flush=True)
            if options.keep is not None:
                torch.save(model.state_dict(), options.keep / "state.pt")


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
    if options.resume is None:
        learn(model, tokenizer, Course(options.steps, 2e-3, stay=0.4, copy_share=0.1, answers=False), options)
    learn(model, tokenizer, Course(options.answer_steps, 1e-3, stay=0.0, copy_share=0.0, answers=True), options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(options.out, model, tokenizer)
    if options.keep is not None:
        torch.save(model.state_dict(), options.keep / "state.pt")
    digest, size = hashlib.sha256(options.out.read_bytes()).hexdigest(), options.out.stat().st_size
    print(f"{time.monotonic() - began:.0f} s; {size:,} bytes; sha256 {digest}", flush=True)
    show(model, tokenizer)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "backends" / "llama" / "demo.gguf")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4000, help="of the first course: stories; 2,048 tokens each")
    parser.add_argument("--answer-steps", type=int, default=1300, help="of the second course: short answers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--keep", type=Path, help="folder for the torch weights and tokenizer.json, for check.py")
    parser.add_argument("--resume", type=Path, help="weights that --keep has written after the first course")
    return parser.parse_args()


if __name__ == "__main__":
    main()
