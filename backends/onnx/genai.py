"""onnxruntime-genai: the one room of that library, which computes texts where a model's folder is made for it.

It is optional (`pip install onnxruntime-genai`, whose ONNX Runtime replaces the installed one's files; with a GPU
`onnxruntime-genai-cuda`). Tokens are drawn here all the same, from its logits, so seeds and sampling mean the same.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import LoadError
from .genai_config import read_config
from .refusal import InputRefused, sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


class Text:
    """What was computed of one answer."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def trim(self) -> None:
        """It holds nothing that is not needed."""


class GenaiDecoder:
    """Computes each text apart. Raises LoadError."""

    alone = True

    def __init__(self, path: str, n_ctx: int, n_threads: int, provider: str = "") -> None:
        import onnxruntime_genai as og

        self._og, self._n_ctx = og, n_ctx
        try:
            og.disable_telemetry_events()  # nothing that is asked here leaves the machine
            config = og.Config(os.path.dirname(path))
            session = {"session_options": {"intra_op_num_threads": n_threads}}
            config.overlay(json.dumps({"model": {"decoder": session}}))
            config.clear_providers()
            if provider == "CUDAExecutionProvider":
                config.append_provider("cuda")
            self._model = og.Model(config)
        except Exception as error:  # the library has no class of its own for what goes wrong
            print(f"load: {error}", file=sys.stderr)
            raise LoadError("corrupt", "onnxruntime-genai cannot load the model; the worker's log says why") from None
        self.device = str(self._model.device_type)
        self.n_vocab = int(read_config(path).get("vocab_size") or 0)

    def begin(self) -> Text:
        params = self._og.GeneratorParams(self._model)
        params.set_search_options(max_length=self._n_ctx, batch_size=1)
        return Text(self._og.Generator(self._model, params))

    def piece(self, text: Text, tokens: Sequence[int], usual: int) -> Sequence[int]:
        """As many as others leave it the time for."""
        return tokens[:usual]

    def compute(self, text: Text, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Logits after the last token. Raises InputRefused."""
        try:
            text.generator.append_tokens(np.asarray(tokens, np.int32))
            return np.asarray(text.generator.get_logits()[:, -1], np.float32)
        except Exception as error:
            print(f"run: {error}", file=sys.stderr)
            raise InputRefused(sentence(error)) from None
