"""The model files that the probes need, made once and kept under build/bench."""

from __future__ import annotations

import os
from pathlib import Path

from ..models.random_gguf import SHAPES, write_random_gguf

CACHE = Path(__file__).parents[2] / "build" / "bench"
N_VOCAB = SHAPES["qwen2-0.5b"].n_vocab


def tiny() -> Path:
    """A file that only the fake engine will serve."""
    return _made("tiny", "q8_0")


def sixty_million() -> Path:
    """Small enough for many requests, with a real vocabulary."""
    return _made("60m", "q8_0")


def half_billion() -> Path:
    """Qwen2-0.5B in all but its answers."""
    return _made("qwen2-0.5b", "q4_k_m")


def half_billion_that_copies() -> Path:
    """The same size, but every token is followed by the next one of its ring of 32: it repeats what it has read."""
    return _made("ring-0.5b", "q4_k_m")


def large_small_and_stranger() -> tuple[Path, Path, Path]:
    """Two that say the same, as all layers but the first of the large one change nothing, and one that does not."""
    large, small, stranger = (_made(f"{name}-300m", "q8_0") for name in ("padded", "unpadded", "stranger"))
    return large, small, stranger


def int8_encoder(n_embd: int) -> Path:
    """An encoder of six layers in dynamic int8, as sentence encoders are; in its folder, two small graphs."""
    from ..models.random_onnx import Size, affine, echo, encoder_graph, quantized

    folder = CACHE / f"pooled-encoder-{n_embd}"
    path = folder / f"encoder-{n_embd}.onnx"
    if not path.exists():
        print(f"making {path.name}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        size = Size(n_layers=6, n_embd=n_embd, n_heads=12, n_ff=4 * n_embd, n_vocab=30_522)
        plain = encoder_graph(folder / "plain.part", size, pooled=True)
        quantized(plain, folder / "int8.part").rename(path)
        plain.unlink()
        affine(folder / "affine.onnx")
        echo(folder / "echo.onnx")
    return path


def _made(shape: str, quant: str) -> Path:
    path = CACHE / f"{shape}-{quant}" / f"{shape}-{quant}.gguf"
    if not path.exists():
        print(f"making {path.name}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        write_random_gguf(unfinished, SHAPES[shape], quant, path.stem)
        unfinished.rename(path)
    return path
