"""Scores under a large vocabulary: autograd's values and gradients, without its memory."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_policies import STEADY, VOCABULARY, model, sample
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from searchr1.training.head import linear_scores, reduced_products
from searchr1.training.logprobs import policy_logprobs
from searchr1.training.packing import pack


def written_out(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    table = torch.log_softmax(scale * hidden @ weight.T, dim=-1)
    return table.gather(-1, targets[:, None]).squeeze(-1), -(table.exp() * table).sum(-1)


def tensors(count: int, seed: int = 0, words: int = 13) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    return normal(count, 6), normal(words, 6), torch.randint(words, (count,), generator=generator)


@STEADY
@given(st.integers(1, 20), st.integers(1, 25), st.sampled_from([1.0, 0.4, 2.5]), st.booleans(), st.booleans())
def test_values_and_gradients_are_those_of_autograd(
    count: int, chunk: int, scale: float, uses_logprobs: bool, uses_entropy: bool
) -> None:
    hidden, weight, targets = tensors(count)
    pull = torch.linspace(-1, 2, count, dtype=torch.float64)

    def gradients(logprobs: Tensor, entropy: Tensor) -> tuple[Tensor, ...]:
        loss = (logprobs * pull).sum() * uses_logprobs + (entropy * pull.flip(0)).sum() * uses_entropy
        return torch.autograd.grad(loss, (hidden, weight))

    ours = linear_scores(hidden, weight, targets, scale=scale, chunk_tokens=chunk, with_entropy=True)
    expected = written_out(hidden, weight, targets, scale)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradients(*ours), gradients(*expected))


def test_gradients_by_finite_differences() -> None:
    hidden, weight, targets = tensors(5)

    def scores(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return linear_scores(hidden, weight, targets, scale=0.7, chunk_tokens=2, with_entropy=True)

    assert torch.autograd.gradcheck(scores, (hidden, weight))


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_gets_no_gradient(frozen: int) -> None:
    """A head that is not trained (an adapter elsewhere is), or states that are not."""
    *inputs, targets = tensors(4)
    expected = torch.autograd.grad(written_out(inputs[0], inputs[1], targets, 1.0)[0].sum(), inputs)
    inputs[frozen].requires_grad_(False)
    logprobs, entropy = linear_scores(*inputs, targets, scale=1.0, chunk_tokens=3, with_entropy=False)
    assert entropy.numel() == 0
    logprobs.sum().backward()
    assert inputs[frozen].grad is None
    torch.testing.assert_close(inputs[1 - frozen].grad, expected[1 - frozen])


def test_logits_beyond_the_range_of_exp() -> None:
    hidden, weight, targets = tensors(4)
    ours = linear_scores(hidden * 1e4, weight, targets, scale=1.0, chunk_tokens=3, with_entropy=True)
    torch.testing.assert_close(ours[0], written_out(hidden * 1e4, weight, targets, 1.0)[0])
    assert torch.isfinite(ours[1]).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(ours[0].sum() + ours[1].sum(), (hidden, weight)))


def test_the_same_bits_every_time() -> None:
    def once() -> list[Tensor]:
        hidden, weight, targets = tensors(9)
        scores = linear_scores(hidden, weight, targets, scale=1.0, chunk_tokens=4, with_entropy=True)
        return [*scores, *torch.autograd.grad(scores[0].sum() - scores[1].sum(), (hidden, weight))]

    assert all(map(torch.equal, once(), once()))


HIDDEN = 40


class _Widest(TorchDispatchMode):
    """Remembers the most rows of any tensor as wide as the vocabulary, the transposed weights [hidden, V] aside."""

    rows = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        if (
            isinstance(result, Tensor)
            and result.ndim == 2
            and result.shape[-1] == VOCABULARY
            and result.shape[0] != HIDDEN
        ):
            self.rows = max(self.rows, result.shape[0])
        return result


def test_logits_exist_for_one_chunk_of_tokens() -> None:
    policy = model(hidden_size=HIDDEN)
    [batch] = pack([sample(n, n) for n in (12, 5, 9, 12, 8)], row_length=64)
    assert len(batch.targets_N) > 15
    with _Widest() as widest:
        scores = policy_logprobs(policy, batch, chunk_tokens=5)
        assert widest.rows == 5
        (scores.logprobs_N.sum() + scores.entropy_N.sum()).backward()
    assert widest.rows == 5


def test_a_head_that_is_watched_is_called() -> None:
    """Hooks are how weights are put together that lie in shards."""
    policy = model()
    calls: list[int] = []
    policy.get_output_embeddings().register_forward_pre_hook(lambda *_: calls.append(1))
    [batch] = pack([sample(9, 1)])
    policy_logprobs(policy, batch)
    assert calls


def test_reduced_products_are_a_setting_of_the_moment() -> None:
    switches = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [switch.fp32_precision for switch in switches]
    with contextlib.suppress(ZeroDivisionError), reduced_products(True):
        assert [switch.fp32_precision for switch in switches] == ["tf32", "bf16"]
        raise ZeroDivisionError
    assert [switch.fp32_precision for switch in switches] == before


def test_reduced_products_give_nearly_the_same() -> None:
    hidden, weight, targets = (t.float() if t.is_floating_point() else t for t in tensors(64, words=400))
    options = {"scale": 1.0, "chunk_tokens": 16, "with_entropy": True}
    exact, near = (linear_scores(hidden, weight, targets, **options, reduced=on) for on in (False, True))
    torch.testing.assert_close(near, exact, rtol=0, atol=0.05)
