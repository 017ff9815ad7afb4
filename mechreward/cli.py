"""Thin commands. A mistake gives one line and exit code 2; Ctrl-C loses nothing that was finished."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from mechreward._check import MechRewardError
from mechreward.study import Plan, Study

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
DEFAULT = Plan()


@app.callback()
def _commands() -> None:
    """Find the sparse reward subsystem of a language model, and find out whether to believe it."""


@app.command()
def demo(
    out: Path = typer.Option(Path("runs/demo"), help="Folder for everything the run writes."),
    model: str = typer.Option(DEFAULT.model, help="A bundled model, a model folder, or owner/model on the hub."),
    task: str = typer.Option(DEFAULT.task, help="A bundled task."),
    seed: int = typer.Option(DEFAULT.seed),
    train: int = typer.Option(DEFAULT.train, help="Problems to fit probes on."),
    validation: int = typer.Option(DEFAULT.validation, help="Problems to choose layer and share on."),
    test: int = typer.Option(DEFAULT.test, help="Problems to report on."),
    k: int = typer.Option(DEFAULT.k, help="Continuations for each state's value."),
    ablated: int = typer.Option(DEFAULT.ablated, help="Test problems for the ablation."),
    confidence: int = typer.Option(DEFAULT.confidence, help="Test problems for confidence."),
    draws: int = typer.Option(DEFAULT.draws, help="Matched control sets: 19 can reach p = .05, 99 p = .01."),
    random_draws: int = typer.Option(DEFAULT.random_draws, help="Random control sets of each kind."),
    curve_draws: int = typer.Option(DEFAULT.curve_draws, help="Random subsets and shuffles at each pruning ratio."),
    overwrite: bool = typer.Option(False, help="Start the run in this folder anew."),
) -> None:
    """Find value and dopamine neurons, ablate them beside every control, and write results.json and report.html."""
    from mechreward.reading import write

    plan = Plan(model, task, seed, train, validation, test, k, ablated, confidence, draws, random_draws, curve_draws)
    study = Study.open(plan, out, overwrite, say=typer.echo)
    results = study.run()
    page = write(study, results, study.splits)
    results = type(results).load(out / "results.json")
    for head, key in (("found", "found"), ("not found", "not_found")):
        for sentence in results.manifest[key]:
            typer.echo(f"  {head}: {sentence}")
    typer.echo(f"report: {page}")


def main() -> None:
    """Entry point of the `mechreward` command."""
    try:
        app()
    except MechRewardError as error:
        print(f"mechreward: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("mechreward: stopped. Finished stages are kept: the same command goes on from there.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
