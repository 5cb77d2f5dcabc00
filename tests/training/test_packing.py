"""Packing by exact value, and what must never depend on it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_policies import SAMPLES, STEADY, advantages, sample, trained

from searchr1.errors import UserError
from searchr1.training.packing import PackedBatch, pack
from searchr1.types import Sample

A = Sample((5, 6, 7, 8, 9), (False, True, False, True, False), (0.0, -1.0, 0.0, -2.0, 0.0), 1.0, "q", weight=0.5)
B = Sample((4, 3), (False, True), (0.0, -3.0), 0.0, "q")
C = Sample((1, 2), (False, False), (0.0, 0.0), 0.0, "q")


def test_two_samples_in_one_row() -> None:
    values = torch.tensor([0.1, 0.2, 0.3])
    others = {"trainer_N": 2 * values, "returns_N": 3 * values, "values_N": 4 * values}
    [batch] = pack([A, C, B], advantages_N=values, reference_N=-values, **others, row_length=6)
    # The tokens after a sample's last trained one, and that one itself as an input, are not needed.
    assert batch.input_ids.tolist() == [[5, 6, 7, 4]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 2]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0]]
    assert batch.index_N.tolist() == [0, 2, 3]
    assert batch.targets_N.tolist() == [6, 8, 3]
    assert batch.flat_N.tolist() == [0, 1, 2]
    assert batch.sample_N.tolist() == [0, 0, 2]
    assert batch.behaviour_N.tolist() == [-1.0, -2.0, -3.0]
    assert batch.advantages_N.tolist() == values.tolist()
    assert batch.reference_N.tolist() == (-values).tolist()
    for name, numbers in others.items():
        assert getattr(batch, name).tolist() == numbers.tolist()
    assert batch.action_N.tolist() == [0, 1, 2]  # an observation stands between the first two
    assert batch.weights_N.tolist() == [0.5, 0.5, 1.0]
    assert batch.total_tokens == 3
    assert batch.total_samples == 2  # C has nothing to train


def test_one_row_each_when_rows_are_as_long_as_the_longest_sample() -> None:
    [batch] = pack([B, A])
    assert batch.input_ids.tolist() == [[5, 6, 7], [4, 0, 0]]
    assert batch.segment_ids.tolist() == [[1, 1, 1], [0, -1, -1]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.index_N.tolist() == [3, 0, 2]  # sample order, not row order
    assert batch.targets_N.tolist() == [3, 6, 8]


def test_micro_batches_share_the_denominator() -> None:
    first, second = pack([A, B], max_tokens=3)
    assert first.input_ids.tolist() == [[5, 6, 7]]
    assert second.input_ids.tolist() == [[4]]
    assert (first.total_tokens, second.total_tokens) == (3, 3)
    assert second.flat_N.tolist() == [2]
    assert (first.total_samples, second.total_samples) == (2, 2)
    whole = pack([A, B], max_tokens=3, total_tokens=40, total_samples=9)
    assert [(b.total_tokens, b.total_samples) for b in whole] == [(40, 9), (40, 9)]


def test_actions_are_runs_of_trained_tokens_in_one_sample() -> None:
    masks = [(0, 1, 1, 0, 1, 0, 0, 1, 1), (0, 0, 1), (0, 1, 0, 0)]
    samples = [Sample((7,) * len(m), tuple(map(bool, m)), (-1.0,) * len(m), 1.0, "q") for m in masks]
    [batch] = pack(samples)
    assert batch.sample_N.tolist() == [0, 0, 0, 0, 0, 1, 2]
    assert batch.action_N.tolist() == [0, 0, 1, 2, 2, 3, 4]


def test_padding_id_and_end_of_sequence_id_are_ordinary_tokens() -> None:
    # 0 is what padding is filled with; as a sampled token it is an input, a target, and trained.
    s = Sample((0, 0, 0), (False, True, True), (0.0, -1.0, -1.0), 1.0, "q")
    [batch] = pack([s, A])
    assert batch.targets_N.tolist() == [0, 0, 6, 8]
    assert (batch.segment_ids >= 0).sum() == 5


def test_errors() -> None:
    with pytest.raises(ValueError, match="sample 1: its first token is marked as trained, but nothing predicts it"):
        pack([A, Sample((1,), (True,), (-1.0,), 0.0, "q")])
    with pytest.raises(
        UserError, match=r"sample 0 needs 3 tokens in a row, .*: raise training\.micro_batch_tokens = 2"
    ):
        pack([A, B], max_tokens=2)
    with pytest.raises(ValueError, match=r"expected advantages_N to have one entry per trained token \(3\), got 5"):
        pack([A, B], advantages_N=torch.zeros(5))
    for name in ("reference_N", "trainer_N", "returns_N", "values_N"):
        with pytest.raises(ValueError, match=rf"expected {name} to have one entry per trained token \(3\), got 2"):
            pack([A, B], **{name: torch.zeros(2)})
    with pytest.raises(ValueError, match="sample 0: expected as many mask and log-probability entries as tokens"):
        pack([Sample((1, 2), (False,), (0.0,), 0.0, "q")])


def test_nothing_trained_makes_no_batch() -> None:
    assert pack([C]) == []


def placed(batch: PackedBatch, n: int) -> tuple[int, list[int]]:
    """The target of trained token ``n`` and the context that its predicting position can see."""
    row, column = divmod(int(batch.index_N[n]), batch.input_ids.shape[1])
    visible = (batch.segment_ids[row] == batch.sample_N[n]) & (torch.arange(batch.input_ids.shape[1]) <= column)
    assert batch.position_ids[row][visible].tolist() == list(range(int(visible.sum())))
    return int(batch.targets_N[n]), batch.input_ids[row][visible].tolist()


@STEADY
@given(SAMPLES, st.integers(0, 40), st.integers(13, 60))
def test_every_trained_token_once_with_its_own_context(samples: list[Sample], row_length: int, max_tokens: int) -> None:
    batches = pack(samples, advantages_N=advantages(samples), row_length=row_length, max_tokens=max_tokens)
    expected = [(s, i) for s in range(len(samples)) for i, m in enumerate(samples[s].mask) if m]
    seen = {}
    for batch in batches:
        assert batch.input_ids.numel() <= max_tokens
        assert batch.sample_N.tolist() == sorted(batch.sample_N.tolist())
        assert (batch.segment_ids >= 0).any(dim=0).all()  # no column of padding alone
        for n, flat in enumerate(batch.flat_N.tolist()):
            number, place = expected[flat]
            assert batch.sample_N[n] == number
            assert placed(batch, n) == (samples[number].token_ids[place], list(samples[number].token_ids[:place]))
            assert batch.behaviour_N[n] == torch.tensor(samples[number].logprobs[place])
            assert batch.advantages_N[n] == advantages(samples)[flat]
            seen[flat] = True
    assert sorted(seen) == list(range(trained(samples)))


def test_packing_is_deterministic() -> None:
    samples = [sample(n, n) for n in (9, 4, 9, 7, 3, 5)]
    first, second = (pack(samples, row_length=16, max_tokens=32) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.input_ids, b.input_ids)
        assert torch.equal(a.flat_N, b.flat_N)
