"""Thin commands. A mistake gives one line and exit code 2; Ctrl-C loses nothing that was
finished."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import typer

from mechreward.base.errors import MechRewardError
from mechreward.bench.ground import Sizes
from mechreward.experiments.plan import PAPER, Plan
from mechreward.studies.study import Study

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
DEFAULT = Plan()
SIZES = Sizes()
STOPPED = 130  # exit code after Ctrl-C


@app.callback()
def _commands() -> None:
    """Find the sparse reward subsystem of a language model, and find out whether to believe it."""


@app.command()
def demo(
    out: Path = typer.Option(Path("runs/demo"), help="Folder for everything the run writes."),
    model: str = typer.Option(
        DEFAULT.model,
        help="A bundled model, a model folder, owner/model on the hub, or planted-NAME: the truth is known.",
    ),
    task: str | None = typer.Option(
        None, help="A bundled task; countdown, or a planted model's own, if not given."
    ),
    seed: int = typer.Option(DEFAULT.seed),
    train: int = typer.Option(DEFAULT.train, help="Problems to fit probes on."),
    validation: int = typer.Option(
        DEFAULT.validation, help="Problems to choose layer and share on."
    ),
    test: int = typer.Option(DEFAULT.test, help="Problems to report on."),
    k: int = typer.Option(DEFAULT.k, help="Continuations for each state's value."),
    ablated: int = typer.Option(DEFAULT.ablated, help="Test problems for the ablation."),
    confidence: int = typer.Option(DEFAULT.confidence, help="Test problems for confidence."),
    draws: int = typer.Option(
        DEFAULT.draws, help="Matched control sets: 19 can reach p = .05, 99 p = .01."
    ),
    random_draws: int = typer.Option(
        DEFAULT.random_draws, help="Random control sets of each kind."
    ),
    curve_draws: int = typer.Option(
        DEFAULT.curve_draws, help="Random subsets and shuffles at each pruning ratio."
    ),
    overwrite: bool = typer.Option(False, help="Start the run in this folder anew."),
) -> None:
    """Find value and dopamine neurons, ablate them beside every control, and write results.json and
    report.html."""
    from mechreward.experiments.choice import home_of
    from mechreward.report.study_page import write
    from mechreward.studies.paper import demo as run_demo

    where = task or home_of(model)
    plan = Plan(
        model,
        where,
        seed,
        train,
        validation,
        test,
        k,
        ablated,
        confidence,
        draws,
        random_draws,
        curve_draws,
    )
    study = Study.open(plan, out, overwrite, say=typer.echo)
    results = run_demo(study)
    page = write(study.out, study.plan, study.model, results, study.splits["test"])
    results = type(results).load(out / "results.json")
    for head, key in (("found", "found"), ("not found", "not_found")):
        for sentence in results.manifest[key]:
            typer.echo(f"  {head}: {sentence}")
    typer.echo(f"report: {page}")


@app.command()
def paper(
    names: list[str] = typer.Argument(help="R1 to R10, R12 to R14, all of these, and certificate."),
    model: str | None = typer.Option(
        None, help="One model instead of the bundled ones, or planted-NAME."
    ),
    task: str | None = typer.Option(None, help="One bundled task."),
    out: Path = typer.Option(
        Path("runs/paper"), help="Folder: one run for each model and task, and results.json."
    ),
    seed: int = typer.Option(PAPER.seed),
    train: int = typer.Option(PAPER.train, help="Problems to fit probes on."),
    validation: int = typer.Option(PAPER.validation, help="Problems to choose layer and share on."),
    test: int = typer.Option(PAPER.test, help="Problems to report on."),
    k: int = typer.Option(PAPER.k, help="Continuations for each state's value."),
    ablated: int = typer.Option(PAPER.ablated, help="Test problems for each ablation."),
    confidence: int = typer.Option(PAPER.confidence, help="Test problems for confidence."),
    draws: int = typer.Option(PAPER.draws, help="Matched control sets."),
    random_draws: int = typer.Option(PAPER.random_draws, help="Random control sets of each kind."),
    curve_draws: int = typer.Option(
        PAPER.curve_draws, help="Random subsets, bases and shuffles at each ratio."
    ),
    docs: Path | None = typer.Option(
        None, help="Write the results as a page of Markdown with its pictures too."
    ),
) -> None:
    """Repeat the paper's experiments with all their controls, on bundled models or your own."""
    from mechreward.experiments.choice import home_of
    from mechreward.experiments.plan import asked
    from mechreward.experiments.rows import Results
    from mechreward.report.findings.rules import findings
    from mechreward.report.results_page import write_page
    from mechreward.studies.paper import reproduce

    homes = asked(model, task) or [
        (model or DEFAULT.model, task or home_of(model or DEFAULT.model))
    ]
    plan = Plan(
        "",
        "",
        seed,
        train,
        validation,
        test,
        k,
        ablated,
        confidence,
        draws,
        random_draws,
        curve_draws,
    )
    results = reproduce(names, out, homes, plan, say=typer.echo)
    for name, where in homes:
        typer.echo(f"{name} on {where}")
        for head, sentences in zip(
            ("found", "not found"),
            findings(Results({}, tuple(results.where(model=name, task=where)))),
            strict=True,
        ):
            for sentence in sentences:
                typer.echo(f"  {head}: {sentence}")
    typer.echo(f"results: {out / 'results.json'}")
    if docs:
        again = f"{results.manifest['command']} --docs {docs}"
        typer.echo(f"page: {write_page(results, docs, again)}")


@app.command()
def certify(
    out: Path = typer.Option(
        Path("runs/certificate"), help="Folder for certificate.json and certificate.md."
    ),
    model: str = typer.Option(
        DEFAULT.model, help="As for demo, or planted-NAME: a model whose truth is known."
    ),
    task: str | None = typer.Option(
        None, help="A bundled task; countdown, or a planted model's own, if not given."
    ),
    neurons: Path | None = typer.Option(
        None, help="A NeuronSet's JSON; if not given, one is chosen and kept too."
    ),
    kind: str = typer.Option("resid_post", help="What to choose among: resid_post or mlp."),
    seed: int = typer.Option(0),
    train: int = typer.Option(80, help="Problems to fit on."),
    validation: int = typer.Option(
        30, help="Problems to choose layer and share on, if a set is chosen."
    ),
    test: int = typer.Option(80, help="Problems whose states are read and patched."),
    k: int = typer.Option(16, help="Continuations for each state's value."),
    n: int = typer.Option(200, help="Test problems for steering."),
    draws: int = typer.Option(99, help="Matched sets and other nulls; fewer than 99 cannot pass."),
    pairs: int = typer.Option(60, help="Pairs of states for patching."),
) -> None:
    """Certify a set: decodable, sparse, causal, specific, sufficient; pass, fail, or what to run to
    settle it."""
    from mechreward.base.errors import one_of, require
    from mechreward.base.files import write_atomic
    from mechreward.causal.certificate import certify as hold
    from mechreward.experiments.choice import KINDS, by_name, find
    from mechreward.probing.neurons import NeuronSet

    require(not out.is_file(), f"{out} is a file; --out names a folder.")
    one_of("kind of neuron", kind, KINDS)
    given = NeuronSet.load(neurons) if neurons else None
    loaded, game = by_name(model, task, seed)
    if given is None:
        given = find(loaded, game, kind, seed=seed, train=train, validation=validation, k=k)
        given.save(out / "neurons.json")
    found = hold(
        loaded, game, given, seed=seed, train=train, test=test, k=k, n=n, draws=draws, pairs=pairs
    )
    found.save(out / "certificate.json")
    page = write_atomic(out / "certificate.md", found.page())
    typer.echo(str(found))
    typer.echo(f"page: {page}")


@app.command()
def bench(
    out: Path = typer.Option(Path("runs/bench"), help="Folder for results.json."),
    only: list[str] = typer.Option(
        [], help="A contest, P1 to P9 or growth; may be given several times. All if none."
    ),
    model: str = typer.Option(
        "countdown-base", help="A bundled model, a model folder, or owner/model on the hub."
    ),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    repeats: int = typer.Option(SIZES.repeats, help="Interleaved rounds of every contest."),
    problems: int = typer.Option(SIZES.problems, help="Prompts and texts."),
    batch: int = typer.Option(
        SIZES.batch, help="Rows at once, for us and for what we are compared to."
    ),
    sites: int = typer.Option(SIZES.sites, help="Residual layers captured, at most."),
    k: int = typer.Option(SIZES.k, help="Continuations for each state's value."),
    trajectories: int = typer.Option(SIZES.trajectories, help="Rollouts whose states are valued."),
    arms: int = typer.Option(SIZES.arms, help="Interventions."),
    texts: int = typer.Option(SIZES.texts, help="Texts or prompts under each intervention."),
    rows: int = typer.Option(SIZES.rows, help="Rows that probes are fitted to."),
    width: int = typer.Option(SIZES.width, help="Neurons that probes read."),
    fits: int = typer.Option(
        SIZES.fits, help="MLP probes; a quarter as many targets of linear ones."
    ),
    megabytes: int = typer.Option(SIZES.megabytes, help="Activations written and read, at least."),
    docs: Path | None = typer.Option(None, help="Write the results as a page of Markdown too."),
) -> None:
    """Race capture, rollouts, values, fits and interventions against today's tools, a parity check
    beside each."""
    from mechreward.report.bench_page import page
    from mechreward.studies.bench import bench as race

    sizes = Sizes(
        repeats, problems, batch, sites, k, trajectories, arms, texts, rows, width, fits, megabytes
    )
    results = race(out, only=only, model=model, device=device, sizes=sizes, say=typer.echo)
    typer.echo(f"results: {out / 'results.json'}")
    if docs:
        typer.echo(f"page: {page(results, docs)}")


@app.command()
def calibrate(
    out: Path = typer.Option(Path("runs/calibrate"), help="Folder for everything the run writes."),
    seeds: int = typer.Option(
        3, help="Planted models of each kind; more where V-hat comes from its exact law."
    ),
    full: bool = typer.Option(
        False, help="More problems, runs and rankings: what docs/calibration.md was made with."
    ),
    docs: Path | None = typer.Option(None, help="Write the results as a page of Markdown too."),
) -> None:
    """Run the whole pipeline on models whose truth is known: what it finds, what fools it, whether
    intervals cover."""
    from mechreward.report.calibration_page import page
    from mechreward.report.verdicts import verdicts
    from mechreward.studies.calibrate import Plan as Calibration
    from mechreward.studies.calibrate import calibrate as run

    results = run(out, Calibration(seeds, full), say=typer.echo)
    for line in verdicts(results):
        typer.echo(line)
    typer.echo(f"results: {out / 'results.json'}")
    if docs:
        typer.echo(f"page: {page(results, docs)}")


@app.command()
def pages(
    data: Path = typer.Option(Path("docs/data/results.json.gz"), help="The archive of rows."),
    out: Path = typer.Option(Path("docs/_build/pages"), help="Folder for pages and pictures."),
    fill: list[Path] = typer.Option(
        [], help="Instead: a text whose numbers are written anew; may be given several times."
    ),
) -> None:
    """Write the pages of results, calibration and performance from the archive of their rows."""
    from mechreward.report.archive import Archive
    from mechreward.report.pages import fill_file, write_pages

    archive = Archive.load(data)
    for path in [fill_file(path, archive) for path in fill] if fill else write_pages(archive, out):
        typer.echo(f"page: {path}")


def main() -> None:
    """Entry point of the `mechreward` command."""
    try:
        app()
    except MechRewardError as error:
        print(f"mechreward: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _stopped()
    except SystemExit as done:
        if done.code == STOPPED:  # typer turns Ctrl-C into this
            _stopped()
        raise


def _stopped() -> NoReturn:
    print(
        "mechreward: stopped. Finished stages are kept: the same command goes on from there.",
        file=sys.stderr,
    )
    sys.exit(STOPPED)


if __name__ == "__main__":
    main()
