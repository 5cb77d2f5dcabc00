"""``report``."""

from __future__ import annotations

from searchr1.commands.options import Run


def report(run: Run) -> None:
    """Write RUN/report.html: one page, no network needed. Works at any moment of a run."""
    import typer

    from searchr1.report import write_report

    typer.echo(write_report(run))
