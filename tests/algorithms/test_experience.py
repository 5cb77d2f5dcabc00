"""From samples to flat tensors, and from names to algorithms."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from token_tensors import step

from searchr1.algorithms import ALGORITHMS, load_algorithm
from searchr1.algorithms.base import Experience, experience
from searchr1.errors import UserError
from searchr1.types import Sample


def test_only_trained_tokens_are_laid_out_in_sample_order() -> None:
    a = Sample((1, 2, 3, 4), (False, True, False, True), (0.0, -0.5, 0.0, -1.5), 1.0, "x")
    b = Sample((1, 9), (False, True), (0.0, -0.25), 0.5, "y")
    got = experience([a, b], reference_N=torch.tensor([-1.0, -2.0, -3.0]))
    assert got.sample_N.tolist() == [0, 0, 1]
    assert got.logprobs_N.tolist() == [-0.5, -1.5, -0.25]
    assert got.rewards_S.tolist() == [1.0, 0.5]
    assert got.reference_N.tolist() == [-1.0, -2.0, -3.0]
    assert got.values_N.numel() == 0


def test_same_id_in_two_datasets_is_two_groups() -> None:
    assert step([1.0, 0.0, 0.0, 1.0], ["nq/7", "hotpotqa/7", "nq/7", "hotpotqa/7"]).groups_S.tolist() == [0, 1, 0, 1]


def test_wrong_lengths_are_refused() -> None:
    one, two, none = torch.zeros(1), torch.zeros(2), torch.zeros(0)
    with pytest.raises(ValueError, match="one log-probability per trained token"):
        Experience(one, one.long(), two.long(), one, none, none)
    with pytest.raises(ValueError, match=r"expected no value or one per trained token \(2\), got 1"):
        Experience(one, one.long(), two.long(), two, none, one)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_name_loads_with_its_defaults(name: str) -> None:
    algorithm = load_algorithm(name)()
    e = step([1.0, 0.0], ["q", "q"], [2, 3])
    assert algorithm.keep(e).tolist() == [True, True]
    advantages = algorithm.advantages(e)
    assert advantages.shape == (5,)
    assert advantages.dtype == torch.float32
    assert not algorithm.needs.reference
    assert not algorithm.needs.values


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"got 'gppo'; did you mean 'grpo'\?"):
        load_algorithm("gppo")


def test_listing_algorithms_does_not_import_torch() -> None:
    code = "import sys, searchr1.algorithms, searchr1.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
