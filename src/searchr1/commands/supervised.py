"""``sample`` and ``sft``."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchr1.commands.options import Json, RecipeName, Seed, Settings
from searchr1.console import Progress, clock, percent, print_json, progress, say
from searchr1.errors import SearchR1Error, UserError

if TYPE_CHECKING:
    from searchr1.config import Recipe
    from searchr1.supervised.examples import Examples
    from searchr1.supervised.file import KeptFile
    from searchr1.types import Question, Scored

Model = Annotated[str | None, typer.Option("--model", help="A run, a model folder or name; default: the recipe's.")]
_SHARED = ("data", "protocol", "rollout", "reward", "retriever", "engine")
"""The tables that decide what is sampled."""


def sample(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.jsonl.gz", help="Where the trajectories go.")],
    settings: Settings = None,
    questions: Annotated[int | None, typer.Option("--questions", min=1, help="Of data.train. [all]")] = None,
    rollouts: Annotated[int, typer.Option("--rollouts", min=1, help="Trajectories of each question.")] = 5,
    keep: Annotated[str, typer.Option("--keep", help="all, correct, or NAME>=X of the reward or a part.")] = "correct",
    per_question: Annotated[int | None, typer.Option("--per-question", min=1, help="Keep at most so many.")] = None,
    model: Model = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a file that was interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Play training questions and keep the trajectories worth learning from, for ``sft``."""
    from searchr1.assemble import build_player, check_token_ids
    from searchr1.config import load_recipe
    from searchr1.sources import check_sources, open_sources
    from searchr1.supervised.file import KeptFile
    from searchr1.supervised.sampling import Sampler, questions_to_play, read_keep

    changes = _changes(settings, model, seed)
    loaded = load_recipe(recipe, changes)
    check_token_ids(loaded)
    kept = read_keep(keep, loaded.reward)
    order = _order(loaded, {"questions": questions, "rollouts": rollouts, "keep": keep, "per_question": per_question})
    file = KeptFile.resume(out, order) if resume else KeptFile.begin(out, order)
    if file is None:
        say(f"{out}: all was sampled already")
        return
    started = time.monotonic()
    with file:
        check_sources(loaded)
        sources = open_sources(loaded, _workshop(loaded), say)
        played = questions_to_play(sources.train, questions, loaded.seed)
        player = build_player(loaded, loaded.model, played)
        try:
            with progress("sampling", "trajectories") as advance:
                monitor: Any = _Watch(advance, file, len(played), rollouts)
                sampler = Sampler(loaded, player, sources.retriever, rollouts, kept, per_question, monitor)
                counts = asyncio.run(sampler.sample(played, file))
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("interrupted; the same command with --resume goes on") from stop
        except SearchR1Error:
            say("what was sampled is kept; the same command with --resume goes on")
            raise
        file.finish()
    if as_json:
        print_json(counts)
    _tell(out, counts, keep, time.monotonic() - started)


def sft(
    recipe: RecipeName,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="FILE", help="What `searchr1 sample` kept; may be repeated."),
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Learn the gold answers of data.train instead, without searching.")
    ] = False,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="RUN", help="The run folder.")] = None,
    model: Model = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run from its last checkpoint.")] = False,
) -> None:
    """Fine-tune a policy on trajectories; the run (default: runs/NAME-sft) is a model for the other commands."""
    from searchr1.commands.running import Order, peak_memory, run_training, show_results, write_page
    from searchr1.config import load_recipe
    from searchr1.supervised.learning import SupervisedTrainer, check_same, supervised_recipe

    started = time.monotonic()
    changes = _changes(settings, model, seed)
    changes += [f"sft.data={json.dumps(data)}"] if data else []
    changes += ["sft.answers=true"] if answers else []
    loaded = load_recipe(recipe, changes)
    if bool(loaded.sft.data) == loaded.sft.answers:
        both = "both" if loaded.sft.answers else "neither"
        raise UserError(f"sft: expected --data FILE or --answers, got {both}")
    examples = _examples(loaded)
    loaded = supervised_recipe(loaded, examples)
    path = out or Path("runs") / f"{Path(recipe).name.removesuffix('.toml')}-sft"
    if resume:
        check_same(path, examples)
    trainer = partial(_trainer, SupervisedTrainer, examples)
    run = run_training(Order(recipe, changes, loaded, path, command="sft", trainer=trainer), resume=resume)
    show_results(run, loaded.rollout.agent)
    write_page(run)
    say(f"done in {clock(time.monotonic() - started)}, with at most {peak_memory()} of memory")


def _changes(settings: list[str] | None, model: str | None, seed: int | None) -> list[str]:
    """Settings of a recipe from ``--set`` and the options that are short for some."""
    return [
        *(settings or []),
        *([f"model={model}"] if model else []),
        *([f"seed={seed}"] if seed is not None else []),
    ]


def _trainer(make: Any, examples: Examples, *given: Any) -> Any:
    return make(*given, examples)


class _Watch:
    """What is sampled, as progress of one command; a `train.Monitor`."""

    def __init__(self, advance: Progress, file: KeptFile, questions: int, rollouts: int) -> None:
        self._advance, self._file, self._rollouts = advance, file, rollouts
        self._first, self._questions = file.done, questions
        self._before = 0
        if file.done:
            say(f"{file.done:,} of {questions:,} questions were played before")

    def phase(self, name: str, total: int) -> None:
        self._before = (self._file.done - self._first) * self._rollouts

    def progress(self, done: int, total: int) -> None:
        self._advance(self._before + done, (self._questions - self._first) * self._rollouts)

    def paused(self, reason: str) -> None:
        say(f"paused until the search engine answers: {reason}", "yellow")


def _order(recipe: Recipe, options: dict[str, Any]) -> dict[str, Any]:
    """How a file is made, for its first line; a file is only gone on with in the same way."""
    from searchr1.assemble import EMBEDDED_MODELS, model_path

    settings = {key: value for key, value in recipe.resolved().items() if key in _SHARED}
    model = recipe.model if recipe.model in EMBEDDED_MODELS else model_path(recipe.model)
    return {"model": model, "seed": recipe.seed, **options, **settings}


def _workshop(recipe: Recipe) -> Path:
    """Where the encyclopedia and the index of these settings are made, once, and found again."""
    from searchr1.commands.targets import cache_folder

    atlas, corpus = cache_folder(recipe.data), Path(recipe.data.corpus)
    state = corpus.stat() if corpus.is_file() else None
    version = [state.st_size, state.st_mtime_ns] if state else []
    request = json.dumps([atlas.name, str(corpus.resolve()), version, recipe.retriever], default=str)
    return atlas.with_name(f"sources-{hashlib.sha256(request.encode()).hexdigest()[:12]}")


def _tell(path: Path, counts: dict[str, int], keep: str, seconds: float) -> None:
    rate = percent(counts["kept"] / counts["played"])
    say(
        f"{path}: kept {counts['kept']:,} of {counts['played']:,} trajectories ({rate}), of "
        f"{counts['questions_kept']:,} of {counts['questions']:,} questions, in {clock(seconds)}"
    )
    say(
        f"left out: {counts['filtered']:,} by --keep {keep}, {counts['duplicates']:,} duplicates, "
        f"{counts['surplus']:,} above --per-question, {counts['failed']:,} failed (not the policy's doing)"
    )
    if not counts["kept"]:
        say("nothing was kept: there is nothing to learn from", "yellow")


def _examples(recipe: Recipe) -> Examples:
    """What the recipe learns from, checked to be trainable. Raises ``UserError``."""
    from searchr1.assemble import build_dialogue, check_trainable, context_length, model_path
    from searchr1.supervised.examples import check_lengths, divide, read_examples
    from searchr1.supervised.teacher import gold_answers

    check_trainable(recipe)
    source = model_path(recipe.model)
    tokenizer, protocol = build_dialogue(recipe, source)
    scored: Sequence[Scored]
    if recipe.sft.answers:
        questions = _train_questions(recipe)
        with progress("writing gold answers", "questions") as advance:
            scored = gold_answers(questions, protocol, tokenizer, recipe.rollout, advance)
        if left := len(questions) - len(scored):
            say(f"{left:,} gold answers are left out: longer than rollout.turn_tokens, or not answers in this dialogue")
    else:
        with progress("reading", "trajectories") as advance:
            scored = read_examples(recipe.sft.data, tokenizer, protocol, recipe.rollout, advance)
    examples = divide(scored, recipe.sft.held_out, recipe.seed)
    check_lengths(examples, recipe.training.micro_batch_tokens, context_length(source))
    tokens = sum(sum(s.mask) for s in examples.train)
    say(
        f"learning from {len(examples.train):,} trajectories ({tokens:,} tokens of the policy); "
        f"{len(examples.held_out):,} held out"
    )
    return examples


def _train_questions(recipe: Recipe) -> list[Question]:
    from searchr1.sources import ATLAS, atlas_folder, load_questions

    names = [recipe.data.train] if isinstance(recipe.data.train, str) else list(recipe.data.train)
    asked = dataclasses.replace(recipe.data, test=recipe.data.train, corpus="")
    atlas = atlas_folder(_workshop(recipe), asked, say)
    return load_questions([str(atlas / "train.jsonl") if name == ATLAS and atlas else name for name in names])
