"""llama.cpp called by hand, one text alone: what an engine's answers are held against."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import llama_cpp.llama_cpp as c
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def greedy(path: Path, tokens: list[int], n: int, lora: Path | None = None) -> list[int]:
    """The `n` likeliest tokens in a row after a prompt, which is computed in one call."""
    model = c.llama_model_load_from_file(bytes(path), c.llama_model_default_params())
    params = c.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 1024, 1024, 512
    params.n_threads = params.n_threads_batch = 1
    context = c.llama_init_from_model(model, params)
    if lora is not None:
        adapter = c.llama_adapter_lora_init(model, bytes(lora))
        assert adapter
        c.llama_set_adapters_lora(context, (c.llama_adapter_lora_p_ctypes * 1)(adapter), 1, (ctypes.c_float * 1)(1.0))
    n_vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
    said: list[int] = []
    rows = tokens
    while len(said) < n:
        ids = (c.llama_token * len(rows))(*rows)  # C keeps a bare pointer to them
        assert c.llama_decode(context, c.llama_batch_get_one(ids, len(rows))) == 0
        address = ctypes.addressof(c.llama_get_logits_ith(context, -1).contents)
        logits = np.frombuffer(ctypes.string_at(address, 4 * n_vocab), np.float32)
        rows = [int(logits.argmax())]
        said += rows
    c.llama_free(context)
    c.llama_model_free(model)
    return said
