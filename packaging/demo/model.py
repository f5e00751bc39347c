"""A small Llama in torch, with the names and the rotary convention of llama.cpp's `llama` architecture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    n_vocab: int
    n_embd: int = 192
    n_layer: int = 6
    n_head: int = 6
    n_ff: int = 512
    n_ctx: int = 2048
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5


def rotary_table(shape: Shape, n_positions: int) -> tuple[Tensor, Tensor]:
    n_dims = shape.n_embd // shape.n_head
    frequency = shape.rope_base ** (-torch.arange(0, n_dims, 2).float() / n_dims)
    angle = torch.outer(torch.arange(n_positions).float(), frequency)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs (0,1), (2,3), ...: llama.cpp's order, so the export needs no permutation."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


# The bias outweighs the tokens' content until training says otherwise.
LOOK_BACK_HEADS, LOOK_BACK_BIAS, LOOK_BACK_CONTENT = 3, 6.0, 0.1


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_head = shape.n_head
        self.attn_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_eps)
        self.attn_q = nn.Linear(shape.n_embd, shape.n_embd)
        self.attn_k = nn.Linear(shape.n_embd, shape.n_embd)
        self.attn_v = nn.Linear(shape.n_embd, shape.n_embd)
        self.attn_output = nn.Linear(shape.n_embd, shape.n_embd, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_eps)
        self.ffn_gate = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.ffn_up = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.ffn_down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self._feed(x + self._attend(self.attn_norm(x), cos, sin))

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            layer(x).view(batch, length, self.n_head, -1).transpose(1, 2)
            for layer in (self.attn_q, self.attn_k, self.attn_v)
        )
        mixed = functional.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        output: Tensor = self.attn_output(mixed.transpose(1, 2).reshape(batch, length, width))
        return output

    def _feed(self, x: Tensor) -> Tensor:
        h = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(h)) * self.ffn_up(h))


class DemoModel(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.output_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_eps)
        cos, sin = rotary_table(shape, shape.n_ctx)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._start()

    def _start(self) -> None:
        deep = (2 * self.shape.n_layer) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                last = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(weight, std=(deep if last else 1.0) * 0.6 / weight.shape[1] ** 0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        for block in self.blk:
            with torch.no_grad():  # what is looked at begins as what is said
                block.attn_output.weight.copy_(0.7 * block.attn_v.weight.T)
        self._look_back()

    @torch.no_grad()
    def _look_back(self) -> None:
        """Heads of the first block begin by looking one, two, ... tokens back.

        To find what came after a word the last time, a model must know of each token which one came before it. That is
        found late by chance. With rotary positions it is a matter of biases: turned against each other by the angle of
        `n_back` positions, those of query and key agree best at that distance.
        """
        block, n_dims = self.blk[0], self.shape.n_embd // self.shape.n_head
        for head in range(LOOK_BACK_HEADS):
            own, n_back = slice(head * n_dims, (head + 1) * n_dims), head + 1
            for layer in (block.attn_q, block.attn_k):
                layer.weight[own] *= LOOK_BACK_CONTENT
            block.attn_k.bias[own][0::2] = LOOK_BACK_BIAS
            block.attn_q.bias[own][0::2] = LOOK_BACK_BIAS * self.cos[n_back]
            block.attn_q.bias[own][1::2] = -LOOK_BACK_BIAS * self.sin[n_back]

    def hidden(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        x = self.token_embd(ids)
        for block in self.blk:
            x = block(x, self.cos[:length], self.sin[:length])
        normed: Tensor = self.output_norm(x)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.token_embd.weight)

    @torch.no_grad()
    def greedy(self, ids: list[int], stop: set[int], n_tokens: int) -> list[int]:
        """The most likely continuation, without a cache: only for looking at samples."""
        answer: list[int] = []
        while len(answer) < n_tokens and len(ids) + len(answer) < self.shape.n_ctx:
            hidden = self.hidden(torch.tensor([ids + answer]))[:, -1]
            answer.append(int(self.logits(hidden).argmax()))
            if answer[-1] in stop:
                break
        return answer
