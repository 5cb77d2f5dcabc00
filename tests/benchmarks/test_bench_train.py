from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from searchr1.benchmarks.training import bench, systems, work, worker
from searchr1.benchmarks.training.bench import Options, bench_training
from searchr1.benchmarks.training.systems import SYSTEMS, Variant, arrived, missing, padded
from searchr1.benchmarks.training.work import Shape, Work, build_model, needed_flops, search_samples
from searchr1.errors import UserError
from searchr1.types import Sample

TINY = Shape(2, 32, 2, 48, samples=4, micro_batch_tokens=3000, key_value_heads=1, vocabulary=61)
KEYS = {"figure", "unit", "ours", "peer", "theirs", "ratio"}


def short(samples: list[Sample], factor: int) -> list[Sample]:
    """The same trajectories with one token in ``factor``."""
    return [
        Sample(s.token_ids[::factor], (False, *s.mask[::factor][1:]), s.logprobs[::factor], 0.0, s.group)
        for s in samples
    ]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setitem(work.SHAPES, "tiny", TINY)
    samples = short(search_samples(5, TINY.vocabulary), 9)
    return Work("tiny", samples, [1.0, -0.5, 2.0, 0.3, -1.0], micro_batch_tokens=300)


def one_update(system: str, tiny: Work, variant: Variant) -> tuple[float, Tensor]:
    """The loss, and the clipped gradient that the optimiser was given."""
    model = build_model("tiny")
    built = SYSTEMS[system](tiny, model, variant)
    seen: list[Tensor] = []

    def remember(optimizer: Any, arguments: Any, options: Any) -> None:
        seen.append(torch.cat([p.grad.flatten().clone() for p in model.parameters()]))

    built.optimizer.register_step_pre_hook(remember)
    loss = built.update()
    [gradient] = seen
    return loss, gradient


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("peer", ["transformers", "trl"])
@pytest.mark.filterwarnings("ignore")  # TRL's and its libraries' own
def test_every_system_makes_the_same_update(peer: str, checkpointing: bool, tiny: Work) -> None:
    if missing(peer):
        pytest.skip("TRL is not installed")
    variant = Variant(checkpointing=checkpointing)
    loss, gradient = one_update("ours", tiny, variant)
    other, theirs = one_update(peer, tiny, variant)
    assert abs(loss) > 1e-3
    assert other == pytest.approx(loss, rel=1e-4)
    assert gradient.norm() > 0.1
    torch.testing.assert_close(theirs, gradient, rtol=1e-3, atol=1e-5)


def test_bfloat16_is_close_to_float32(tiny: Work) -> None:
    for system in ("ours", "transformers"):
        exact, low = (one_update(system, tiny, Variant(precision))[1] for precision in ("float32", "bfloat16"))
        assert 0 < (low - exact).norm() < 0.05 * exact.norm()


def test_micro_batches_hold_every_sample_once_within_the_budget(tiny: Work) -> None:
    for divided in (False, True):
        batches = list(arrived(tiny, divided=divided))
        assert [row for rows in batches for row in rows] == list(range(5))
        assert len(batches) > 1
    for rows in arrived(tiny):
        assert padded([tiny.samples[row] for row in rows])[0].numel() <= tiny.micro_batch_tokens


def test_padding_is_attended_to_by_nobody_and_never_trained() -> None:
    ids, attended, trained, old = padded(
        [Sample((5, 6, 7), (False, True, True), (0.0, -1.0, -2.0), 0.0, ""), Sample((8,), (False,), (0.0,), 0.0, "")]
    )
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert attended.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert trained.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert old.tolist() == [[0, -1, -2], [0, 0, 0]]


def test_lengths_are_those_of_search_trajectories() -> None:
    samples = search_samples(200, 100)
    lengths = sorted(len(sample.token_ids) for sample in samples)
    assert 150 < lengths[0] < 350 < lengths[100] < 1400 < lengths[-1] <= 2048
    assert 0.1 < sum(sum(s.mask) for s in samples) / sum(lengths) < 0.4
    assert samples == search_samples(200, 100)
    assert {p for s in samples for p in s.logprobs} == {0.0, -math.log(100)}


def test_work_survives_a_file(tiny: Work, tmp_path: Path) -> None:
    tiny.save(tmp_path / "work.json")
    assert Work.load(tmp_path / "work.json") == tiny


def test_needed_operations(tiny: Work) -> None:
    """Queries and outputs 32 x 32, keys and values 32 x 16, three matrices 32 x 48; the head, met by trained tokens."""
    body, head, attention = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48), 61 * 32, 2 * 32
    squares = sum(len(s.token_ids) ** 2 for s in tiny.samples)
    expected = 6 * (body * tiny.tokens + head * tiny.trained + attention * squares)
    assert needed_flops(tiny, build_model("tiny")) == expected


def test_the_peak_is_the_largest_running_sum() -> None:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        first = torch.empty(1_000_000)
        second = torch.empty(500_000)
        del first, second
        torch.empty(1_000_000)
    assert worker._peak(profiled) == pytest.approx(6_000_000, rel=0.01)


def test_the_ceiling_is_positive() -> None:
    worker.SIDE, side = 64, worker.SIDE
    try:
        assert worker.ceiling("float32", "cpu")["flops"] > 1e6
    finally:
        worker.SIDE = side


def test_figures_have_ratios(tiny: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """With costs that are given, so that the numbers are known."""
    costs = {"ours": (2.0, 100.0), "transformers": (5.0, 300.0)}

    def measure(task: str, *, system: str = "", **what: Any) -> dict[str, float]:
        assert what["threads"] == 1
        if task == "ceiling":
            return {"flops": needed_flops(tiny, build_model("tiny"))}
        seconds, megabytes = costs[system]
        return {"seconds": seconds, "loss": 0.5} if task == "speed" else {"tensors": megabytes, "process": megabytes}

    said: list[str] = []
    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "MODELS", ("tiny",))
    monkeypatch.setattr(bench, "make_work", lambda name, samples: tiny)
    monkeypatch.setattr(systems.importlib.util, "find_spec", lambda name: None)
    rows = bench_training(Options(models=("tiny",), variants=("float32",), rounds=2, say=said.append))
    assert all(set(row) == KEYS for row in rows)
    assert [(row["unit"], row["ours"], row["theirs"], row["ratio"]) for row in rows] == [
        ("tokens/s", pytest.approx(tiny.tokens / 2, rel=1e-3), pytest.approx(tiny.tokens / 5, rel=1e-3), 2.5),
        ("MB", 100.0, 300.0, 3.0),
        ("MB", 100.0, 300.0, 3.0),
        ("% of a matrix product", 50.0, 20.0, 2.5),
    ]
    assert "trl: skipped, trl is not installed: pip install 'searchr1[bench]'" in said
    assert sum("load average" in line for line in said) == 4


def test_a_process_measures_an_update(tmp_path: Path) -> None:
    """The demo's own policy on two short samples, as the benchmark runs it."""
    rows = short(search_samples(2, 2000), 20)
    Work("atlas", rows, [1.0, -1.0], 4096).save(tmp_path / "work.json")
    asked = {"work": str(tmp_path / "work.json"), "precision": "float32", "checkpointing": False, "device": "cpu"}
    peaks = worker.measure("memory", system="ours", threads=1, **asked)
    assert peaks["tensors"] > 1
    assert peaks["process"] > 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"models": ("smal",)}, "--model: there is no model 'smal'; did you mean 'small'"),
        ({"variants": ("bf16",)}, "--variant: there is no variant 'bf16'"),
        ({"peers": ("verl",)}, "--peer: there is no peer 'verl'"),
        ({"rounds": 0}, "--rounds: expected at least 1, got 0"),
        ({"samples": 0}, "--samples: expected at least 1, got 0"),
        ({"device": "tpu"}, "--device: expected one of cpu, cuda, got 'tpu'"),
    ],
)
def test_wrong_options_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench_training(Options(**given))


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing("transformers") is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "datasets" else name)
    assert missing("trl") == "trl: skipped, datasets is not installed: pip install 'searchr1[bench]'"
