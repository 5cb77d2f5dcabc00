"""``compare``: who is better, on which questions, and what could have been seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import Right, settings, write
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from searchr1.errors import UserError
from searchr1.evaluation.compare import compare
from searchr1.evaluation.paired import detectable_difference, mcnemar

KEYS = {
    "n", "difference", "ci_low", "ci_high", "p_value", "mcnemar_p", "only_a", "only_b", "detectable", "left_out",
}  # fmt: skip


def both(path: Path, a: Right, b: Right) -> tuple[Path, Path]:
    return write(path / "a", a, settings("a")), write(path / "b", b, settings("b"))


def test_above_zero_means_that_b_is_better(tmp_path: Path) -> None:
    a, b = both(tmp_path, [1] * 10 + [0] * 30, [1] * 24 + [0] * 16)
    result = compare(a, b)
    assert set(result) == KEYS | {"unmatched", "datasets", "macro"}
    assert (result["n"], result["left_out"], result["unmatched"]) == (40, 0, 0)
    assert result["difference"] == pytest.approx(0.35)
    assert 0 < result["ci_low"] < 0.35 < result["ci_high"] < 0.6
    assert result["p_value"] < 0.01
    assert (result["only_a"], result["only_b"]) == (0, 14)
    assert result["mcnemar_p"] == pytest.approx(2 / 2**14)
    assert result["detectable"] == detectable_difference(40, 14 / 40)
    assert result["macro"] is None
    assert result["datasets"] == {"nq": {key: result[key] for key in KEYS}}
    assert compare(b, a)["difference"] == pytest.approx(-0.35)
    same = compare(a, a)
    assert [same[key] for key in ("difference", "ci_low", "ci_high", "p_value", "mcnemar_p")] == [0, 0, 0, 1, 1]
    assert same["detectable"] is None


def test_only_common_questions_that_failed_in_neither(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [0, None, 1, 1], settings("a"), first=0)  # questions 0 to 3
    b = write(tmp_path / "b", [1, None, 0, 0], settings("b"), first=1)  # questions 1 to 4
    result = compare(a, b)
    assert (result["n"], result["left_out"], result["unmatched"]) == (1, 2, 2)
    assert (result["difference"], result["only_a"], result["only_b"], result["mcnemar_p"]) == (-1.0, 1, 0, 1.0)


def test_every_data_set_and_their_mean(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, {"nq": [0] * 90 + [1] * 10, "musique": [1, 0] * 5, "popqa": [None]}, settings("a"))
    write(b, {"popqa": [1], "musique": [1, 0] * 5, "nq": [1] * 30 + [0] * 60 + [1] * 10}, settings("b"))
    result = compare(a, b)
    assert result["difference"] == pytest.approx(30 / 110)
    assert list(result["datasets"]) == ["nq", "musique", "popqa"]
    assert result["datasets"]["nq"]["difference"] == pytest.approx(0.3)
    assert result["datasets"]["musique"]["difference"] == 0
    assert result["datasets"]["popqa"] == dict.fromkeys(KEYS) | {"n": 0, "left_out": 1}
    macro = result["macro"]
    assert set(macro) == {"difference", "ci_low", "ci_high", "p_value", "detectable"}
    assert macro["difference"] == pytest.approx(0.15)
    assert (macro["ci_low"], macro["ci_high"]) == pytest.approx((0.105, 0.195), abs=0.01)  # half of nq's alone
    assert macro["p_value"] < 0.01


def test_samples_count_with_their_mean(tmp_path: Path) -> None:
    a, b = both(tmp_path, [[1, 0], [0, 0], [None, 1]], [[1, 1], [0, 1], [0, None]])
    result = compare(a, b)
    assert result["n"] == 3
    assert result["difference"] == pytest.approx((0.5 + 0.5 - 1.0) / 3)
    assert [result[key] for key in ("mcnemar_p", "only_a", "only_b")] == [None] * 3
    assert result["detectable"] == pytest.approx(2.801585 * 0.5, abs=1e-5)  # the standard error is 0.866 / sqrt(3)


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.sampled_from([0, 1, None])] * 2), min_size=1, max_size=12), st.randoms())
def test_exchange_flips_the_sign_and_order_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int | None, int | None]], chance: object
) -> None:
    if not any(x is not None and y is not None for x, y in pairs):
        return
    path = tmp_path_factory.mktemp("pairs")
    a, b = both(path, [x for x, _ in pairs], [y for _, y in pairs])
    there, back = compare(a, b), compare(b, a)
    assert there["difference"] == -back["difference"]
    assert (there["only_a"], there["only_b"]) == (back["only_b"], back["only_a"])
    for key in ("n", "mcnemar_p", "detectable", "left_out", "unmatched"):
        assert there[key] == back[key]
    assert there["mcnemar_p"] == mcnemar(there["only_b"], there["only_a"])
    lines = (a / "predictions.jsonl").read_text().splitlines(keepends=True)
    chance.shuffle(lines)  # type: ignore[attr-defined]
    (a / "predictions.jsonl").write_text("".join(lines))
    assert compare(a, b) == there


def test_nothing_to_compare(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [1], settings("a"))
    with pytest.raises(UserError, match="expected common questions, found none"):
        compare(a, write(tmp_path / "other id", [1], settings("b"), first=2))
    with pytest.raises(UserError, match="expected common questions, found none"):
        compare(a, write(tmp_path / "other set", {"popqa": [1]}, settings("b")))
    with pytest.raises(UserError, match="each of the 1 common questions failed in one"):
        compare(a, write(tmp_path / "failed", [None], settings("b")))
    with pytest.raises(UserError, match="expected predictions, found none"):
        compare(a, write(tmp_path / "empty", [], settings("b")))


def test_one_id_for_two_questions_is_no_comparison(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [1], settings("a"))
    for place, change in enumerate(({"question": "another?"}, {"answers": ["no"]})):
        b = write(tmp_path / str(place), [1], settings("b"), **change)
        with pytest.raises(UserError, match="nq '0' is not the same question in both"):
            compare(a, b)


def test_a_question_twice(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [1], None)
    rows = (a / "predictions.jsonl").read_text()
    (a / "predictions.jsonl").write_text(rows * 2)
    with pytest.raises(UserError, match="nq '0' occurs twice"):
        compare(a, a)


def test_samples_of_two_questions_under_one_id(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [[1, 0]], settings("a"))
    path = a / "predictions.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{second.replace('nq 0?', 'another?')}\n")
    with pytest.raises(UserError, match="nq '0': its samples are of different questions"):
        compare(a, a)
