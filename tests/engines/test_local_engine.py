import asyncio
import random
from typing import Any

import pytest
import torch
from tiny_models import (
    ARCHITECTURES,
    VOCABULARY,
    CharacterTokenizer,
    dialogue,
    dialogues,
    plain_logprobs,
    tiny,
)
from transformers import AutoConfig, AutoModelForCausalLM

from searchr1.engines import ENGINES
from searchr1.engines.local import LocalEngine
from searchr1.errors import EngineError, UserError
from searchr1.types import Completion, FinishReason, Sampling


def make(model: Any = None, **options: Any) -> LocalEngine:
    return LocalEngine(model or tiny(), CharacterTokenizer(), **options)


async def once(engine: LocalEngine, context: list[int], sampling: Sampling) -> Completion:
    with engine.session() as session:
        return await engine.generate(context, sampling, session=session)


@pytest.mark.parametrize("name", ARCHITECTURES)
async def test_logprobs_are_those_of_a_plain_forward_pass(name: str) -> None:
    model = tiny(name)
    for turns in await dialogues(make(model, slots=8, prefill_tokens=64), range(8)):
        context, last = turns[-1]
        whole = plain_logprobs(model, [*context, *last.token_ids])
        for context, completion in turns:
            start = len(context) - 1
            expected = whole[start : start + len(completion.token_ids)]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


async def test_logprobs_are_those_of_the_tempered_distribution() -> None:
    model = tiny()
    ((context, completion),) = await dialogue(make(model), 3, turns=1, temperature=0.5, stop=())
    expected = plain_logprobs(model, [*context, *completion.token_ids], temperature=0.5)[len(context) - 1 :]
    torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


async def test_greedy_takes_the_likeliest_token() -> None:
    model = tiny()
    completion = await once(make(model), [1, 2, 3], Sampling(12, temperature=0.0))
    tokens = [1, 2, 3]
    with torch.no_grad():
        for _ in range(12):
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    assert list(completion.token_ids) == tokens[3:]
    assert completion.logprobs == (0.0,) * 12


async def test_nothing_is_computed_twice() -> None:
    engine = make(slots=16, prefill_tokens=64)
    runs = await dialogues(engine, range(16))
    contexts = sum(len(turns[-1][0]) for turns in runs)
    sampled = sum(len(completion.token_ids) for turns in runs for _, completion in turns)
    # All but the last completion's tokens are part of the last context; of those, each turn's last was prefilled.
    decoded = sum(len(completion.token_ids) - 1 for turns in runs for _, completion in turns[:-1])
    assert engine.stats.prefilled_tokens == contexts - decoded
    assert engine.stats.generated_tokens == sampled


async def test_another_context_is_recomputed_from_the_common_prefix() -> None:
    engine = make()
    with engine.session() as session:
        await engine.generate([1, 2, 3, 4, 5], Sampling(3, temperature=0.0), session=session)
        again = await engine.generate([1, 2, 9, 9], Sampling(3, temperature=0.0), session=session)
        same = await engine.generate([1, 2, 9, 9], Sampling(3, temperature=0.0), session=session)
    assert engine.stats.prefilled_tokens == 5 + 2 + 1
    assert again == same == await once(make(), [1, 2, 9, 9], Sampling(3, temperature=0.0))


async def test_same_requests_same_bits() -> None:
    assert await dialogues(make(), range(24)) == await dialogues(make(), range(24))


async def test_a_grown_engine_gives_the_bits_of_a_fresh_one() -> None:
    engine = make()
    await dialogues(engine, range(100, 140), max_tokens=60)
    assert await dialogues(engine, range(12)) == await dialogues(make(), range(12))


@pytest.mark.parametrize("slots", [4, 16])
async def test_arrival_times_change_nothing(slots: int) -> None:
    expected = await dialogues(make(slots=slots), range(16))
    for trial in range(2):
        jittered = await dialogues(make(slots=slots), range(16), jitter=random.Random(trial))
        assert jittered == expected


async def test_tokens_do_not_depend_on_the_company() -> None:
    together = await dialogues(make(slots=7), range(20))
    others = await dialogues(make(deterministic=False, slots=5), range(20), jitter=random.Random(1))
    for seed in range(0, 20, 4):
        alone = await dialogue(make(), seed)
        for turns in (together[seed], others[seed]):
            assert [c.token_ids for _, c in turns] == [c.token_ids for _, c in alone]
            for (_, ours), (_, theirs) in zip(turns, alone, strict=True):
                assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


async def test_a_stop_string_over_several_tokens_ends_the_completion_with_the_token_that_completes_it() -> None:
    free = await once(make(), [5, 6], Sampling(30, seed=4))
    stop = CharacterTokenizer().decode(free.token_ids[9:12])
    assert stop not in CharacterTokenizer().decode(free.token_ids[:11])
    stopped = await once(make(), [5, 6], Sampling(30, seed=4, stop=("never", stop)))
    assert stopped == Completion(free.token_ids[:12], free.logprobs[:12], FinishReason.STOP, 0)


async def test_a_stop_string_begun_by_the_context_is_not_one() -> None:
    free = await once(make(), [5, 6], Sampling(8, seed=4))
    stop = CharacterTokenizer().decode([6, free.token_ids[0]])
    assert await once(make(), [5, 6], Sampling(8, seed=4, stop=(stop,))) == free


async def test_eos_is_kept_and_ends_the_completion() -> None:
    free = await once(make(), [5, 6], Sampling(30, seed=4))
    engine = LocalEngine(tiny(), CharacterTokenizer(eos_ids=(free.token_ids[7], free.token_ids[20])))
    ended = await once(engine, [5, 6], Sampling(30, seed=4))
    first = min(free.token_ids.index(free.token_ids[i]) for i in (7, 20)) + 1
    assert ended == Completion(free.token_ids[:first], free.logprobs[:first], FinishReason.EOS, 0)


async def test_new_weights_are_used_and_old_keys_forgotten() -> None:
    old, new = tiny(seed=0), tiny(seed=1)
    engine = make(old)
    with engine.session() as session:
        first = await engine.generate([1, 2, 3], Sampling(5), session=session)
        await engine.load(new.state_dict().items(), 7)
        context = [1, 2, 3, *first.token_ids, 4]
        second = await engine.generate(context, Sampling(5), session=session)
    assert (first.version, second.version, engine.version) == (0, 7, 7)
    expected = plain_logprobs(new, [*context, *second.token_ids])[len(context) - 1 :]
    torch.testing.assert_close(torch.tensor(second.logprobs), expected, atol=1e-4, rtol=0)


async def test_named_parameters_of_a_tied_model_are_a_complete_set() -> None:
    model = tiny()
    await make(model).load(tiny(seed=1).named_parameters(), 1)
    assert torch.equal(model.lm_head.weight, tiny(seed=1).lm_head.weight)


async def test_a_trainer_that_shares_the_module_loads_nothing() -> None:
    model = tiny()
    engine = make(model)
    with engine.session() as session:
        await engine.generate([1, 2, 3], Sampling(2), session=session)
        with torch.no_grad():
            model.model.layers[0].self_attn.v_proj.weight.add_(0.5)
        await engine.load((), 1)
        completion = await engine.generate([1, 2, 3, 4], Sampling(4), session=session)
    assert completion.version == 1
    expected = plain_logprobs(model, [1, 2, 3, 4, *completion.token_ids])[3:]
    torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


async def test_requests_under_way_go_on_under_new_weights() -> None:
    new = tiny(seed=1)
    engine = make(tiny())
    task = asyncio.create_task(once(engine, [1, 2, 3], Sampling(40, seed=2)))
    while engine.stats.generated_tokens < 10:
        await asyncio.sleep(0)
    await engine.load(new.state_dict().items(), 1)
    completion = await task
    assert len(completion.token_ids) == 40
    assert completion.version == 0
    expected = plain_logprobs(new, [1, 2, 3, *completion.token_ids])[2 + 12 :]
    torch.testing.assert_close(torch.tensor(completion.logprobs[12:]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {"model.embed_token.weight": torch.zeros(1)}, "did you mean 'model.embed_tokens.weight'"),
        (lambda w: w | {"model.norm.weight": torch.zeros(3)}, r"has shape \(32,\), the new weights \(3,\)"),
        (lambda w: {"model.norm.weight": w["model.norm.weight"]}, "lack 2. of the model's tensors"),
    ],
)
async def test_weights_of_another_model_are_refused(change: Any, message: str) -> None:
    engine = make()
    with pytest.raises(EngineError, match=message):
        await engine.load(change(dict(tiny().state_dict())).items(), 1)
    assert engine.version == 0


async def test_a_slow_search_holds_the_others_back_in_deterministic_mode_only() -> None:
    for deterministic in (True, False):
        engine = make(deterministic=deterministic)
        with engine.session():  # a trajectory that searches
            task = asyncio.create_task(once(engine, [1], Sampling(2)))
            await asyncio.sleep(0.05)
            assert task.done() is not deterministic
        await task


async def test_a_long_wait_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("searchr1.engines.local.PATIENCE", 0.01)
    engine = make()
    with engine.session():
        task = asyncio.create_task(once(engine, [1], Sampling(2)))
        await asyncio.sleep(0.05)
    await task
    assert "1 open sessions that neither generate nor close" in caplog.messages[0]


async def test_a_cancelled_request_leaves_the_batch() -> None:
    engine = make()
    with engine.session() as session:
        task = asyncio.create_task(engine.generate([1], Sampling(200), session=session))
        other = asyncio.create_task(once(engine, [1, 2, 3], Sampling(100, seed=1)))
        while engine.stats.generated_tokens < 10:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    alone = await once(make(), [1, 2, 3], Sampling(100, seed=1))
    assert (await other).token_ids == alone.token_ids
    assert engine.stats.generated_tokens < 200


async def test_a_broken_pass_fails_its_requests_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(prefill_tokens=4)  # one row a pass
    forward = engine.model.forward

    def broken(**inputs: Any) -> Any:
        if (inputs["input_ids"] == 63).any():
            raise RuntimeError("no memory left")
        return forward(**inputs)

    monkeypatch.setattr(engine.model, "forward", broken)
    good, bad = await asyncio.gather(
        once(engine, [1, 2, 3], Sampling(4, stop=("`",))),
        once(engine, [1, 2, 63], Sampling(4)),
        return_exceptions=True,
    )
    assert isinstance(good, Completion)
    assert isinstance(bad, EngineError)
    assert str(bad) == "a forward pass failed: RuntimeError: no memory left"
    assert await once(engine, [1, 2, 3], Sampling(4)) == good


async def test_weights_that_are_not_finite_fail_the_request() -> None:
    model = tiny()
    engine = make(model)
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    for temperature in (0.0, 1.0):
        with pytest.raises(EngineError, match="not finite"):
            await once(engine, [1], Sampling(4, temperature=temperature))


async def test_the_trainer_finds_its_mode_again() -> None:
    model = tiny(attention_dropout=0.5).train()
    engine = make(model)
    assert model.training
    assert await once(engine, [1, 2], Sampling(8)) == await once(engine, [1, 2], Sampling(8))
    await asyncio.sleep(0)
    assert model.training


def test_an_engine_outlives_its_event_loop() -> None:
    engine = make()
    first, second = (asyncio.run(dialogue(engine, 1)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("context", "sampling", "message"),
    [
        ([], Sampling(4), "empty"),
        ([1] * 250, Sampling(7), "250 tokens and 7 new ones exceed the engine's max_length of 256"),
    ],
)
async def test_requests_that_cannot_be_served(context: list[int], sampling: Sampling, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        await once(make(), context, sampling)


@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(1, temperature=-1.0), Sampling(1, top_p=0.0)])
async def test_sampling_that_makes_no_sense(sampling: Sampling) -> None:
    with pytest.raises(UserError, match="got"):
        await once(make(), [1], sampling)


async def test_sessions_are_checked() -> None:
    engine = make()
    with engine.session() as session:
        running = asyncio.create_task(engine.generate([1], Sampling(4), session=session))
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="one completion at a time"):
            await engine.generate([1], Sampling(4), session=session)
        await running
    with pytest.raises(EngineError, match="open session"):
        await engine.generate([1], Sampling(4), session=session)


def test_models_with_other_attention_are_refused() -> None:
    tokenizer = CharacterTokenizer()
    with pytest.raises(UserError, match="window of 256 tokens"):
        LocalEngine(tiny("gemma2", max_position_embeddings=512), tokenizer)
    mamba = AutoConfig.for_model("mamba", vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(UserError, match="cannot run this MambaForCausalLM"):
        LocalEngine(AutoModelForCausalLM.from_config(mamba), tokenizer, max_length=64)
    with pytest.raises(UserError, match="max_length"):
        LocalEngine(AutoModelForCausalLM.from_config(mamba), tokenizer)


def test_a_model_whose_weights_were_cut_off_is_refused(tmp_path: Any) -> None:
    tiny().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="no causal language model"):
        ENGINES["local"](str(tmp_path), CharacterTokenizer(), dtype="float32", device="cpu", slots=4)


async def test_the_factory_loads_a_folder(tmp_path: Any) -> None:
    model = tiny()
    model.save_pretrained(tmp_path)
    engine = ENGINES["local"](str(tmp_path), CharacterTokenizer(), dtype="float32", device="cpu", slots=4)
    assert isinstance(engine, LocalEngine)
    assert await once(engine, [1, 2], Sampling(4)) == await once(make(model), [1, 2], Sampling(4))
    with pytest.raises(UserError, match="no causal language model"):
        ENGINES["local"](str(tmp_path / "nothing"), CharacterTokenizer())
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        ENGINES["local"](str(tmp_path), CharacterTokenizer(), dtype="bfloat")


async def test_half_precision() -> None:
    model = tiny(initializer_range=0.1)
    engine = ENGINES["local"](model, CharacterTokenizer(), dtype="bfloat16")
    assert isinstance(engine, LocalEngine)
    completion = await once(engine, [1, 2, 3], Sampling(10))
    expected = plain_logprobs(model, [1, 2, 3, *completion.token_ids])[2:]
    torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=0.1, rtol=0)
