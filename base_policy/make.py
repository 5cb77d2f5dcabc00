"""Make the base policy: tokenizer, documents, next-token training, checkpoint, manifest. See docs/base-policy.md."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tokenizers
import torch
import torch.nn.functional as F
import transformers
from documents import Document, Mixture, documents
from model import make_model
from tokens import make_tokenizer

from searchr1 import __version__
from searchr1.protocols.tags import Tags
from searchr1.tokenization import HFTokenizer


@dataclass(frozen=True)
class Recipe:
    """Everything the checkpoint depends on. ``tokens`` counts documents, padding left out."""

    seed: int = 20261
    tokens: int = 13_000_000
    width: int = 128
    layers: int = 4
    heads: int = 2
    ff: int = 384
    row: int = 256
    rows: int = 12
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    documents_per_world: int = 4000
    passages: tuple[int, int] = (2, 2)  # fewest and most that a search returns
    world_size: int = 2500
    threads: int = 1  # faster than two for batches this small, and the same result on any number of cores
    bf16: bool = True
    context_weight: float = 0.2  # of a prompt's or passage's token in the loss; the policy's own have 1
    first_share: float = 0.6  # of all tokens: the part that is made with the first mixture
    mixtures: tuple[Mixture, Mixture] = (
        Mixture(0.10, 0.36, 0.44, 0.02, 0.03, 0.05, forms=(0.40, 0.38, 0.22)),
        Mixture(0.55, 0.22, 0.15, 0.04, 0.02, 0.02),
    )


def rows(recipe: Recipe, tokenizer: HFTokenizer, scratch: Path) -> Iterator[list[Document]]:
    """Endless rows: documents that fit together into ``recipe.row`` tokens, from one new world after another."""
    dialogue = Tags(tokenizer, "short", "never")
    number = seen = 0
    while True:
        seed = recipe.seed * 1000 + number
        mixture = recipe.mixtures[seen >= recipe.first_share * recipe.tokens]
        made = documents(seed, recipe.documents_per_world, recipe.world_size, mixture, tokenizer, dialogue, scratch,
                         recipe.passages)  # fmt: skip
        packed = _pack([document for document in made if len(document.ids) <= recipe.row], recipe.row)
        random.Random(seed).shuffle(packed)
        yield from packed
        seen += sum(len(document.ids) for row in packed for document in row)
        number += 1


def _pack(made: list[Document], length: int) -> list[list[Document]]:
    """First-fit decreasing."""
    packed: list[list[Document]] = []
    space: dict[int, list[int]] = {}  # free tokens -> rows with that much room
    for document in sorted(made, key=lambda document: len(document.ids), reverse=True):
        need = len(document.ids)
        room = min((free for free, waiting in space.items() if free >= need and waiting), default=None)
        if room is None:
            packed.append([])
            room, row = length, len(packed) - 1
        else:
            row = space[room].pop()
        packed[row].append(document)
        space.setdefault(room - need, []).append(row)
    return packed


def tensors(batch: list[list[Document]], length: int, context_weight: float) -> tuple[torch.Tensor, ...]:
    """Ids, positions, block-diagonal causal mask, targets, and the weight of each target (0: nothing to predict)."""
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    positions, owner, targets = torch.zeros_like(ids), torch.full_like(ids, -1), torch.zeros_like(ids)
    weights = torch.zeros(ids.shape)
    for r, row in enumerate(batch):
        at = 0
        for number, document in enumerate(row):
            count = len(document.ids)
            span, inner = slice(at, at + count), slice(at, at + count - 1)
            ids[r, span] = torch.tensor(document.ids)
            positions[r, span] = torch.arange(count)
            owner[r, span] = number
            targets[r, inner] = torch.tensor(document.ids[1:])
            weights[r, inner] = torch.where(torch.tensor(document.spoken[1:]), 1.0, context_weight)
            at += count
    same = owner[:, None, :, None] == owner[:, None, None, :]
    return ids, positions, same & torch.ones(length, length, dtype=torch.bool).tril(), targets, weights


def train(recipe: Recipe, out: Path, scratch: Path) -> dict[str, float]:
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    fast = make_tokenizer(out)
    tokenizer = HFTokenizer(str(out))
    model = make_model(len(fast), fast.eos_token_id, width=recipe.width, layers=recipe.layers, heads=recipe.heads,
                       ff=recipe.ff, seed=recipe.seed)  # fmt: skip
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    source, seen, step, started, recent = rows(recipe, tokenizer, scratch), 0, 0, time.time(), 0.0
    while seen < recipe.tokens:
        batch = [next(source) for _ in range(recipe.rows)]
        ids, positions, mask, targets, weights = tensors(batch, recipe.row, recipe.context_weight)
        share = seen / recipe.tokens
        rate = min(1.0, (step + 1) / recipe.warmup_steps) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            hidden = model.model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)[0]
            kept = weights.flatten() > 0
            logits = model.lm_head(hidden.flatten(0, 1)[kept])
        losses = F.cross_entropy(logits.float(), targets.flatten()[kept], reduction="none")
        loss = (losses * weights.flatten()[kept]).sum() / weights.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen += sum(len(document.ids) for row in batch for document in row)
        step += 1
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 50 == 0:
            speed = seen / (time.time() - started)
            print(f"step {step} tokens {seen / 1e6:.2f}M loss {recent:.3f} {speed:.0f} tok/s", flush=True)
        if step % 100 == 0:
            model.save_pretrained(out)
    model.save_pretrained(out)
    return {"steps": step, "tokens": seen, "loss": round(recent, 4)}


def write_manifest(recipe: Recipe, out: Path, result: dict[str, float]) -> None:
    """What was made, from what, with what; hashes of every file (a test checks them)."""
    made = sorted(path for path in out.iterdir() if path.name not in ("manifest.json", "training_args.bin"))
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made}
    versions = {"searchr1": __version__, "torch": torch.__version__, "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__}  # fmt: skip
    manifest = {"format": "searchr1-base-policy", "version": 1, "recipe": asdict(recipe), "result": result,
                "versions": versions, "sha256": hashes}  # fmt: skip
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path("build/base-policy"))
    parser.add_argument("--tokens", type=int, default=Recipe.tokens, help="fewer for a trial")
    parser.add_argument("--width", type=int, default=Recipe.width)
    parser.add_argument("--passages", type=int, help="read one to so many passages a search, not always two")
    arguments = parser.parse_args()
    recipe = Recipe(tokens=arguments.tokens, width=arguments.width)
    if arguments.passages:  # longer documents need longer rows
        recipe = replace(recipe, passages=(1, arguments.passages), row=2 * recipe.row, rows=recipe.rows // 2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_manifest(recipe, arguments.out, train(recipe, arguments.out, arguments.scratch))


if __name__ == "__main__":
    main()
