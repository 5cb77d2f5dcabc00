import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import VOCABULARY, tiny

from searchr1.engines.passes import Passes
from searchr1.engines.slots import SlotCache

MODEL = tiny()


def states(*values: float) -> torch.Tensor:
    """[rows, 1 head, new tokens, size 2] from one number per row and token."""
    return torch.tensor(values).reshape(len(values), 1, 1, 1).expand(-1, 1, 1, 2)


def test_rows_are_written_at_their_own_positions_and_read_as_views() -> None:
    cache = SlotCache(limit=8)
    cache.reserve(2, 1)
    cache.aim(slice(0, 2), torch.tensor([[3], [0]]), 4)
    keys, values = cache.update(states(1.0, 2.0), states(-1.0, -2.0), 0)
    assert keys[:, 0, :, 0].tolist() == [[0, 0, 0, 1], [2, 0, 0, 0]]
    assert values[:, 0, :, 1].tolist() == [[0, 0, 0, -1], [-2, 0, 0, 0]]
    assert keys.untyped_storage().data_ptr() == cache.keys[0].untyped_storage().data_ptr()


def test_chosen_rows_come_in_the_order_of_the_batch() -> None:
    cache = SlotCache(limit=8)
    cache.reserve(3, 1)
    cache.aim(torch.tensor([2, 0]), torch.tensor([[0], [1]]), 2)
    keys, _ = cache.update(states(5.0, 6.0), states(0.0, 0.0), 0)
    assert keys[:, 0, :, 0].tolist() == [[5, 0], [0, 6]]
    assert cache.keys[0][:, 0, :2, 0].tolist() == [[0, 6], [0, 0], [5, 0]]


def test_growth_keeps_what_is_stored_and_stops_at_the_limit() -> None:
    cache = SlotCache(limit=5)
    cache.reserve(3, 1)
    cache.aim(slice(0, 1), torch.tensor([[0]]), 1)
    cache.update(states(7.0), states(8.0), 0)
    cache.reserve(4, 33)
    assert cache.keys[0].shape == (5, 1, 64, 2)
    assert cache.keys[0].sum() == 14
    assert cache.values[0][0, 0, 0].tolist() == [8, 8]


def test_swap_exchanges_slots() -> None:
    cache = SlotCache(limit=3)
    cache.reserve(3, 1)
    cache.aim(slice(0, 3), torch.tensor([[0], [0], [0]]), 1)
    cache.update(states(1.0, 2.0, 3.0), states(4.0, 5.0, 6.0), 0)
    cache.swap([0], [2], 1)
    assert cache.keys[0][:, 0, 0, 0].tolist() == [3, 2, 1]
    assert cache.values[0][:, 0, 0, 0].tolist() == [6, 5, 4]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=8), st.integers(0, 99))
@torch.inference_mode()
def test_any_order_of_passes_gives_the_logits_of_a_plain_one(runs: list[tuple[int, int]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    passes = Passes(MODEL, 4)
    passes.reserve(4, 1)
    texts: list[list[int]] = [[] for _ in range(4)]
    for slot, size in runs:
        other = (slot + 1) % 4
        new = [generator.integers(0, VOCABULARY, n).tolist() for n in (size, 3)]
        texts[slot] += new[0]
        texts[other] += new[1]
        logits = passes.prefill([slot, other], new)
        tokens = generator.integers(0, VOCABULARY, 4)
        decoded = passes.decode(tokens, [slot])
        plain = [MODEL(input_ids=torch.tensor([texts[row]])).logits[0, -1] for row in (slot, other)]
        torch.testing.assert_close(logits, torch.stack(plain), atol=1e-4, rtol=1e-4)
        texts[slot].append(int(tokens[slot]))
        plain_next = MODEL(input_ids=torch.tensor([texts[slot]])).logits[:, -1]
        torch.testing.assert_close(decoded, plain_next, atol=1e-4, rtol=1e-4)
    assert passes.lengths.tolist() == [len(text) for text in texts]
