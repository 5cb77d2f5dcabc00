"""The base policy's architecture and its *mimetic* initialisation.

Reading is associative recall, and recall needs induction heads, which a small model takes millions of tokens to grow.
Started close to them, it takes a hundred steps: the heads of the first layer begin as previous-token heads (through
the query and key biases and the rotary embedding), every layer begins with equal query and key projections and an
output projection that undoes the value projection (cf. Trockman & Kolter, arXiv 2305.09828).
"""

from __future__ import annotations

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

HEAD = 64
KEY_BIAS = 5.0  # sharpness of the previous-token heads
COPY = 0.1  # scale of the output projection against the transposed value projection
EMBEDDING_STD = 0.1  # tied logits are too weak at the usual 0.02


def make_model(vocab: int, eos: int, *, width: int, layers: int, heads: int, ff: int, seed: int) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=vocab, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, head_dim=HEAD, intermediate_size=ff, max_position_embeddings=1024,
        tie_word_embeddings=True, eos_token_id=eos, bos_token_id=None, pad_token_id=eos, use_sliding_window=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD)
        for number, layer in enumerate(model.model.layers):
            _start_attention(layer.self_attn, heads, first=number == 0)
    return model


def _start_attention(attention: torch.nn.Module, heads: int, *, first: bool) -> None:
    width = attention.q_proj.weight.shape[1]
    for head in range(heads):
        rows = slice(head * HEAD, (head + 1) * HEAD)
        basis = torch.linalg.qr(torch.randn(width, HEAD)).Q.T
        attention.q_proj.weight[rows] = attention.k_proj.weight[rows] = basis
        if first:
            attention.k_proj.bias[rows], attention.q_proj.bias[rows] = _previous_token(head + 1)
            attention.q_proj.weight[rows] *= 0.1  # position decides, not content
            attention.k_proj.weight[rows] *= 0.1
    attention.o_proj.weight.copy_(COPY * attention.v_proj.weight.T / attention.v_proj.weight.std() / width**0.5)
    attention.v_proj.weight.div_(attention.v_proj.weight.std() * width**0.5)


def _previous_token(offset: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Key and query biases whose rotary score is largest ``offset`` tokens back: q = R(-offset) k."""
    angles = offset / 10000.0 ** (torch.arange(HEAD // 2) / (HEAD // 2))
    key = torch.cat([torch.full((HEAD // 2,), KEY_BIAS), torch.zeros(HEAD // 2)])
    query = torch.cat([KEY_BIAS * angles.cos(), -KEY_BIAS * angles.sin()])
    return key, query
