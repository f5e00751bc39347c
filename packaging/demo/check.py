"""Look at a finished demo.gguf through llama.cpp: tokens, sameness with torch, stops, lengths, samples."""

from __future__ import annotations

import argparse
import random
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from corpus import documents
from llama_cpp import Llama
from model import DemoModel, Shape
from tokenizers import Tokenizer
from train import PROMPTS
from vocabulary import END_OF_TEXT, IM_END, prompt_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ODD_TEXTS = (
    "I'M HERE, It'S  ok\n\n\n  x\t\ty  ",
    "12345 +-*/ {}[]()<>",
    "naïve café — “quotes” … 你好世界 🙂👍🏽 e\u0301 ß ſ 's",
    "\r\n\r\n a\r b",
    "   ",
    "\u00a0x\u3000y ١٢٣ ½ Ⅷ",
    "<|im_start|>user\nhi<|im_end|>\n",
)
STORIES = ("tell me a story", "tell me a story about a fox", "Tell me a story about a dragon and a mouse.")


def texts(n_documents: int) -> Iterator[str]:
    yield from ODD_TEXTS
    for turns in islice(documents(7, long=True), n_documents):
        yield from (text for _, text in turns)
    rng = random.Random(0)
    for _ in range(300):
        yield "".join(chr(rng.choice((rng.randint(1, 127), rng.randint(128, 0x24FF)))) for _ in range(40))


def n_different(llama: Llama, tokenizer: Tokenizer) -> int:
    """How many texts llama.cpp cuts into other tokens than the training did."""
    cut = ((text, llama.tokenize(text.encode(), add_bos=False, special=True)) for text in texts(300))
    return sum(tokens != tokenizer.encode(text).ids for text, tokens in cut)


def answer(llama: Llama, ids: list[int], stop: set[int], n_tokens: int, temperature: float) -> list[int]:
    said: list[int] = []
    for token in llama.generate(ids, temp=temperature, top_k=0, top_p=0.95, min_p=0.0, repeat_penalty=1.0):
        said.append(token)
        if token in stop or len(said) == n_tokens:
            return said
    return said


def n_alike(one: list[int], two: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--keep", type=Path, required=True, help="the folder that train.py --keep wrote")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(options.keep / "tokenizer.json"))
    model = DemoModel(Shape(n_vocab=tokenizer.get_vocab_size()))
    model.load_state_dict(torch.load(options.keep / "state.pt"))
    llama = Llama(str(options.model), n_ctx=2048, n_threads=1, verbose=False, seed=1)
    stop = {tokenizer.token_to_id(IM_END), tokenizer.token_to_id(END_OF_TEXT)}
    print(f"texts with other tokens: {n_different(llama, tokenizer)}")
    for prompt in (*PROMPTS, *STORIES):
        ids = tokenizer.encode(prompt_of([("user", prompt)])).ids
        greedy = answer(llama, ids, stop, 600, 0.0)
        alike = n_alike(greedy, model.greedy(ids, stop, 80))
        ended = greedy[-1] in stop
        print(f"\n--- {prompt}\n    {len(greedy)} tokens, ended: {ended}, first {alike} as in torch")
        print(tokenizer.decode(greedy))
        print(f"    at temperature 0.7: {tokenizer.decode(answer(llama, ids, stop, 600, 0.7))}")
        if prompt in STORIES and len(greedy) < 150:
            raise SystemExit("a story is too short")
        if not ended:
            raise SystemExit("an answer does not end")


if __name__ == "__main__":
    main()
