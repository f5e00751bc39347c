"""Prompts of an ONNX model: the tokenizer.json beside it, through the `tokenizers` library."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..engine import GrammarError, LoadError
from ..facts import CorruptModel
from ..template import ChatTemplate
from . import folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..facts import LoadPlan
    from ..messages import CallSyntax, ChatMessage, FormatKind, Tool, ToolUse


class OnnxTokenizer:
    """See Tokenizer in ../prepare.py."""

    def __init__(self, path: str) -> None:
        self._tokenizer = open_tokenizer(path)
        self.n_vocab: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        config = folder.read_json(path, folder.TOKENIZER_CONFIG)
        source = _chat_template(path, config)
        bos, eos = (_text(config.get(name)) or "" for name in ("bos_token", "eos_token"))
        self._template = ChatTemplate(source, bos_token=bos, eos_token=eos) if source else None

    def chat(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int] | None:
        if self._template is None:
            return None
        text = self._template.render(messages, tools)
        return self.plain(text, add_special=False, parse_special=True)

    def plain(self, prompt: str, *, add_special: bool, parse_special: bool) -> list[int]:
        self._tokenizer.encode_special_tokens = not parse_special
        tokens: list[int] = self._tokenizer.encode(_valid(prompt), add_special_tokens=add_special).ids
        return tokens

    def pairs(self, query: str, documents: Iterable[str]) -> Iterator[tuple[list[int], int]]:
        """A text that says it is the end of one is no such end."""
        self._tokenizer.encode_special_tokens = True
        for document in documents:
            encoded = self._tokenizer.encode(_valid(query), _valid(document))
            types = encoded.type_ids
            yield encoded.ids, types.index(1) if 1 in types else 0

    def placed(self, text: str) -> tuple[list[int], list[int]]:
        self._tokenizer.encode_special_tokens = True
        encoded = self._tokenizer.encode(_valid(text))
        return encoded.ids, [place for pair in encoded.offsets for place in pair]

    def compile(self, kind: FormatKind, text: str) -> str:
        raise GrammarError("models of ONNX Runtime follow no form yet", "unsupported")

    def compile_tools(self, use: ToolUse) -> tuple[str, CallSyntax]:
        raise GrammarError("models of ONNX Runtime call no tools yet", "unsupported", "tools")


def open_tokenizer(path: str) -> Any:
    """The tokenizer of a model, which cuts nothing off and fills nothing up. Raises CorruptModel."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one text at a time, and others want the cores
    import tokenizers

    raw = folder.read_bytes(path, folder.TOKENIZER, folder.MAX_TOKENIZER_BYTES)
    if raw is None:
        raise CorruptModel(f"there is no {folder.TOKENIZER} beside the model")
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(raw)
    except Exception:  # the library raises a plain Exception, whose text quotes the file
        raise CorruptModel(f"{folder.TOKENIZER} is no tokenizer that is known here") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def stream_pieces(tokenizer: Any) -> Callable[[int], bytes]:
    """What each token adds to a text: the library holds back what is not decided yet."""
    from tokenizers.decoders import DecodeStream

    stream, last = DecodeStream(skip_special_tokens=True), -1

    def piece(token: int) -> bytes:
        nonlocal stream, last
        try:
            text = stream.step(tokenizer, token) or ""
        except Exception:  # a plain one: it held back bytes that are no text, and this token says so
            stream = DecodeStream(ids=[last], skip_special_tokens=True)
            text = "\ufffd" + (stream.step(tokenizer, token) or "")
        last = token
        return text.encode(errors="replace")

    return piece


def name_of(tokenizer: Any) -> Callable[[int], bytes]:
    """What a token is by itself, special ones by their names."""

    def name(token: int) -> bytes:
        text: str = tokenizer.decode([token], skip_special_tokens=False)
        return text.encode(errors="replace")

    return name


def load(plan: LoadPlan) -> OnnxTokenizer:
    """Raises LoadError."""
    try:
        return OnnxTokenizer(plan.path)
    except CorruptModel as error:
        raise LoadError("corrupt", str(error)) from None


def _chat_template(path: str, config: dict[str, Any]) -> str:
    raw = folder.read_bytes(path, folder.CHAT_TEMPLATE, folder.MAX_CONFIG_BYTES)
    if raw is not None:
        return raw.decode(errors="replace")
    given = config.get("chat_template")
    if isinstance(given, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in given if isinstance(t, dict)}
        given = named.get("default")
    return given if isinstance(given, str) else ""


def _text(token: Any) -> str | None:
    """A token as a configuration has it: its text, or an object that holds it."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _valid(text: str) -> str:
    """Half a UTF-16 pair is no text to the library."""
    return text.encode(errors="replace").decode()
