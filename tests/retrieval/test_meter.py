import asyncio
from collections.abc import Sequence

import pytest

from searchr1.ports import RetrieverInfo
from searchr1.retrieval.meter import Meter
from searchr1.types import Passage


class Slow:
    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        await asyncio.sleep(0.05)
        if queries == ["fail"]:
            raise RuntimeError
        return [[] for _ in queries]

    async def info(self) -> RetrieverInfo:
        return RetrieverInfo("slow", 0, "")


async def test_searches_of_one_moment_count_once() -> None:
    meter = Meter(Slow())
    await asyncio.gather(*(meter.search(["a"], 1) for _ in range(20)))
    assert 0.04 < meter.seconds < 0.5  # twenty times 0.05 would be 1.0
    once = meter.seconds
    await asyncio.sleep(0.05)
    assert meter.seconds == once
    with pytest.raises(RuntimeError):
        await meter.search(["fail"], 1)
    assert meter.seconds > once + 0.04
    assert (await meter.info()).kind == "slow"
