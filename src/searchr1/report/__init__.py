"""One self-contained HTML page that shows a run: results, curves, trajectories. Reads the run folder only."""

from __future__ import annotations

from pathlib import Path


def write_report(run_path: str | Path, out: str | Path | None = None) -> Path:
    """Write the page (``RUN/report.html`` unless ``out`` says otherwise) and return where it is.

    Works at any moment of a run; what is not there yet is left out and said. Raises ``UserError`` where ``run_path`` is
    no run or holds a damaged file.
    """
    from searchr1.report.build import write_page

    return write_page(Path(run_path), None if out is None else Path(out))
