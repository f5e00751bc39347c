"""The llama.cpp backend: GGUF models."""
