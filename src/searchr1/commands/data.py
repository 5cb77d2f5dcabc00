"""``data atlas``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from searchr1.commands.options import Seed
from searchr1.console import progress, say


def atlas(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")],
    seed: Seed = None,
    entities: Annotated[int, typer.Option("--entities", help="Pages of the encyclopedia.")] = 3000,
) -> None:
    """Generate the encyclopedia: corpus.jsonl, train.jsonl and test.jsonl, the same for the same seed."""
    from searchr1.data.atlas.write import write_atlas

    with progress("writing", "pages") as advance:
        made = write_atlas(out, seed=seed or 0, entities=entities, progress=advance)
    sizes = made["sizes"]
    say(f"{out}: {sizes['corpus']:,} pages, {sizes['train']:,} training and {sizes['test']:,} test questions")
