"""One measurement in a process of its own: ``python -m searchr1.benchmarks.training.worker '{"task": ...}'``.

Prints one line of JSON: the speed or the peak memory of an update, or the speed of a matrix product.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from searchr1.benchmarks.retrieval.base import one_thread, status_mb
from searchr1.benchmarks.training.systems import System, Variant, build
from searchr1.benchmarks.training.work import Work
from searchr1.errors import SearchR1Error

SIDE = 2048
"""Of the square matrices whose product is the ceiling."""


def measure(task: str, *, threads: int, **what: Any) -> dict[str, float]:
    """Run one of the ``TASKS`` in a process. Raises ``SearchR1Error`` with the end of what it said when it fails."""
    command = [sys.executable, "-m", __name__, json.dumps({"task": task, "threads": threads, **what})]
    environment = {**one_thread(), "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if task == "memory":  # glibc would keep freed blocks for itself, as many as chance has it
        environment["MALLOC_MMAP_THRESHOLD_"] = "131072"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SearchR1Error(f"the {task} of {what.get('system', 'the machine')} could not be measured: {reason}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds: of the processor, all threads, on a CPU; of the clock, all kernels done, elsewhere."""
    on_cpu = device == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    if not on_cpu:
        torch.accelerator.synchronize()
    started = clock()
    work()
    if not on_cpu:
        torch.accelerator.synchronize()
    return clock() - started


def speed(repeats: int, device: str, **what: Any) -> dict[str, float]:
    """Seconds of the fastest of ``repeats`` updates after a first one, and the loss before that."""
    system = _built(device=device, **what)
    loss = system.update()
    return {"seconds": min(timed(system.update, device) for _ in range(repeats)), "loss": loss}


def memory(device: str, **what: Any) -> dict[str, float]:
    """The most that a first update takes beyond the model, in MB: of tensors, and of the whole process.

    On a GPU tensors are all there is.
    """
    system = _built(device=device, **what)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 1e6
        system.update()
        return {"tensors": torch.cuda.max_memory_allocated() / 1e6 - before}
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew: proc(5)
    before = status_mb("self", "VmRSS")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        system.update()
        process = status_mb("self", "VmHWM") - before
    return {"tensors": _peak(profiled) / 1e6, "process": process}


def ceiling(precision: str, device: str) -> dict[str, float]:
    """Operations a second of the product of two large matrices: the most that an update could reach."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    side = SIDE if device == "cpu" else 4 * SIDE
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return {"flops": 2 * side**3 / min(timed(lambda: left @ right, device) for _ in range(8))}


TASKS: dict[str, Callable[..., dict[str, float]]] = {"speed": speed, "memory": memory, "ceiling": ceiling}


def _built(system: str, work: str, precision: str, checkpointing: bool, device: str) -> System:
    return build(system, Work.load(Path(work)), Variant(precision, checkpointing), device)


def _peak(profiled: profile) -> int:
    """The largest running sum of what tensors were given and gave back, in bytes."""
    untyped: Any = profiled.profiler
    events = [event for event in untyped.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes), default=0)


def main() -> None:
    what = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to standard error
    torch.set_num_threads(what.pop("threads"))
    print(json.dumps(TASKS[what.pop("task")](**what)), file=answers, flush=True)


if __name__ == "__main__":
    main()
