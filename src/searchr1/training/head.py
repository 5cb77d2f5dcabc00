"""Log-probabilities and entropies under a large vocabulary: logits exist for a few tokens at a time, twice.

Once for the scores and once more for the gradient, each time in one buffer that is used again for the next tokens and
becomes in place what is wanted next. Autograd over the same formulas keeps several such tensors at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_scores(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    *,
    scale: float,
    chunk_tokens: int,
    with_entropy: bool,
    reduced: bool = False,
) -> tuple[Tensor, Tensor]:
    """Of the softmax of ``scale * hidden @ weight.T``: log-probability of each target, entropy; both [N].

    Without ``with_entropy`` the second has no elements. All tensors have the type of ``weight_VH``. ``reduced`` lets
    the hardware round what it multiplies (see `reduced_products`).

    >>> logprobs, entropy = linear_scores(torch.ones(1, 2), torch.eye(2), torch.tensor([0]), scale=1.0,
    ...     chunk_tokens=8, with_entropy=True)
    >>> [round(x.item(), 4) for x in (logprobs, entropy)]
    [-0.6931, 0.6931]
    """
    scores: tuple[Tensor, Tensor] = _LinearScores.apply(
        hidden_NH, weight_VH, targets_N, scale, chunk_tokens, with_entropy, reduced
    )  # type: ignore[no-untyped-call]
    return scores


@contextmanager
def reduced_products(on: bool) -> Iterator[None]:
    """Products of float32 matrices by hardware for narrower numbers: TF32 on GPUs, bfloat16 where a CPU has AMX.

    Sums and results stay float32, so that this costs less accuracy than a decoder in bfloat16 has lost already.
    On CPUs without such hardware oneDNN takes the place of the default library, which on some is faster, too.
    """
    backends: Any = torch.backends  # what torch says of its types leaves `mkldnn.matmul` out
    switches = ((backends.cuda.matmul, "tf32"), (backends.mkldnn.matmul, "bf16")) if on else ()
    before = [switch.fp32_precision for switch, _ in switches]
    try:
        for switch, precision in switches:
            switch.fp32_precision = precision
        yield
    finally:
        for (switch, _), precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


class _LinearScores(torch.autograd.Function):
    """With p = softmax(z), z = scale * W h, target t and entropy H:

    d log p_t / d z_j = [j = t] - p_j          dH / d z_j = -p_j (log p_j + H)
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        scale: float,
        chunk: int,
        with_entropy: bool,
        reduced: bool,
    ) -> tuple[Tensor, Tensor]:
        count = len(hidden_NH)
        logprobs_N, normalizer_N = hidden_NH.new_empty(count), hidden_NH.new_empty(count)
        entropy_N = hidden_NH.new_empty(count if with_entropy else 0)
        buffer = hidden_NH.new_empty(min(chunk, count), len(weight_VH))
        powers = torch.empty_like(buffer) if with_entropy else buffer
        for start in range(0, count, chunk):
            part = slice(start, min(start + chunk, count))
            with reduced_products(reduced):
                z = _logits(hidden_NH[part], weight_VH, scale, buffer)
            top = z.amax(-1, keepdim=True)
            z.sub_(top)  # from here on the largest is 0
            chosen = z.gather(-1, targets_N[part, None]).squeeze(-1)
            exp = torch.exp(z, out=powers[: len(z)])
            total = exp.sum(-1)
            logarithm = total.log()
            logprobs_N[part] = chosen - logarithm
            normalizer_N[part] = top.squeeze(-1) + logarithm
            if with_entropy:
                entropy_N[part] = logarithm - z.mul_(exp).sum(-1) / total
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N, normalizer_N, entropy_N)
        ctx.scale, ctx.chunk, ctx.reduced = scale, chunk, reduced
        ctx.set_materialize_grads(False)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_logprobs_N: Tensor | None, for_entropy_N: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, targets_N, normalizer_N, entropy_N = ctx.saved_tensors
        count, chunk = len(hidden_NH), ctx.chunk
        if for_logprobs_N is None:
            for_logprobs_N = hidden_NH.new_zeros(count)
        if not len(entropy_N):
            for_entropy_N = None
        grad_hidden = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight_VH) if ctx.needs_input_grad[1] else None
        buffer = hidden_NH.new_empty(min(chunk, count), len(weight_VH))
        powers = torch.empty_like(buffer) if for_entropy_N is not None else buffer
        for start in range(0, count, chunk):
            part = slice(start, min(start + chunk, count))
            hidden = hidden_NH[part]
            with reduced_products(ctx.reduced):
                logp = _logits(hidden, weight_VH, ctx.scale, buffer).sub_(normalizer_N[part, None])
            p = torch.exp(logp, out=powers[: len(logp)])
            weighed_N = for_logprobs_N[part] * ctx.scale
            if for_entropy_N is None:
                gradient = p.mul_(-weighed_N[:, None])
            else:
                pull_N = for_entropy_N[part] * ctx.scale
                logp.mul_(-pull_N[:, None]).sub_((weighed_N + pull_N * entropy_N[part])[:, None])
                gradient = p.mul_(logp)
            gradient.scatter_add_(-1, targets_N[part, None], weighed_N[:, None])
            with reduced_products(ctx.reduced):
                if grad_hidden is not None:
                    torch.mm(gradient, weight_VH, out=grad_hidden[part])
                if grad_weight is not None:
                    grad_weight.addmm_(gradient.T, hidden)
        return grad_hidden, grad_weight, None, None, None, None, None


def _logits(hidden: Tensor, weight_VH: Tensor, scale: float, buffer: Tensor) -> Tensor:
    """Logits [n, V] in the first n rows of ``buffer``."""
    logits = torch.mm(hidden, weight_VH.T, out=buffer[: len(hidden)])
    return logits if scale == 1.0 else logits.mul_(scale)
