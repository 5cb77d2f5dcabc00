import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from searchr1.seeds import derive_seed

PARTS = st.lists(st.integers() | st.text(alphabet='ab,"1é', max_size=6), max_size=4)


def test_known_values() -> None:
    # printf '[0, "q1"]' | b2sum -l 64  ->  5db74842aff983a2...; the seed drops the last bit
    assert derive_seed(0, "q1") == 0x5DB74842AFF983A2 >> 1


def test_parts_are_told_apart() -> None:
    seeds = [derive_seed(*parts) for parts in [("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), (1, 0), ()]]
    assert len(set(seeds)) == len(seeds)


@given(PARTS, PARTS)
def test_63_bits_and_no_accidental_collision(a: list[int | str], b: list[int | str]) -> None:
    assert 0 <= derive_seed(*a) < 2**63
    assert (derive_seed(*a) == derive_seed(*b)) == (a == b)


def test_same_in_another_process() -> None:
    code = "from searchr1.seeds import derive_seed; print(derive_seed(3, 'é', 1))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == derive_seed(3, "é", 1)
