"""The demo model's byte-level BPE vocabulary, in the form that llama.cpp calls gpt2 / qwen2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from corpus import Document

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, IM_START, IM_END)

# The split that llama.cpp applies for tokenizer.ggml.pre = "qwen2": digits stand alone, blanks go with the word.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_vocabulary(texts: Iterable[str], n_vocab: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


# The user's words teach the embeddings a little; a short answer would drown among the stories.
OF_PROMPT, OF_STORY, OF_SHORT_ANSWER = 0.1, 1.0, 4.0
SHORT_TOKENS = 80


def encoded(tokenizer: Tokenizer, turns: Document) -> tuple[list[int], list[float]]:
    """Token ids of one conversation, and how much each of them counts in the loss."""
    ids: list[int] = []
    weights: list[float] = []

    def add(text: str, by_model: bool) -> None:
        piece = tokenizer.encode(text).ids
        ids.extend(piece)
        of_model = OF_SHORT_ANSWER if len(piece) < SHORT_TOKENS else OF_STORY
        weights.extend([of_model if by_model else OF_PROMPT] * len(piece))

    for role, text in turns:
        if role == "text":
            add(text, True)
            continue
        add(f"{IM_START}{role}\n", False)
        add(f"{text}{IM_END}", role == "assistant")
        add("\n", False)
    add(END_OF_TEXT, turns[-1][0] == "text")
    return ids, weights


def prompt_of(turns: Document) -> str:
    """What the chat template makes of these turns when an answer is asked for."""
    return "".join(f"{IM_START}{role}\n{text}{IM_END}\n" for role, text in turns) + f"{IM_START}assistant\n"
