"""Thin commands. A mistake gives one line and exit code 2; Ctrl-C loses nothing that was
finished."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_type_hints

import typer

from mechreward.base.errors import NOTHING_LOST, MechRewardError, one_of, require
from mechreward.base.plain import visible
from mechreward.base.progress import duration
from mechreward.bench.ground import BenchSizes
from mechreward.experiments.plan import (
    APART,
    CERTIFY,
    CONFIDENCE,
    PAPER,
    SEARCH,
    ConfidencePlan,
    Plan,
    SearchPlan,
    asked,
    experiment_list,
    experiment_name,
)
from mechreward.experiments.subject import Subject, home_of

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
MAIN_JOB = Plan()
SIZES = BenchSizes()
BY_NAME = ", ".join(experiment_name(number) for number in APART)
STOPPED = 130  # exit code after Ctrl-C
# Options of several commands.
MODELS = (
    "A bundled model, smollm2, a model folder, a GGUF file, owner/model on the hub, or "
    "planted-NAME: the truth is known."
)
Model = Annotated[str, typer.Option(help=MODELS)]
TASK_NAMES = (
    "A bundled task, a file of questions (.jsonl, .csv, .parquet), or FILE.py:NAME; the model's "
    "own if not given."
)
Game = Annotated[str | None, typer.Option(help=TASK_NAMES)]
Out = Annotated[Path, typer.Option(help="Folder for everything the run writes.")]
Neurons = Annotated[
    Path | None,
    typer.Option(help="A NeuronSet's JSON; if not given, one is chosen and kept too."),
]
Docs = Annotated[Path | None, typer.Option(help="Write the results as a page of Markdown too.")]
Forecast = Annotated[
    bool,
    typer.Option(
        "--forecast", help="Run a short trial alone, and say what the run would do and cost."
    ),
]


def with_options_for(parameter: str, given: bool = False) -> Callable[[Callable], Callable]:
    """Give a command one option for every field of the dataclass that its `parameter` takes.

    Defaults are those of the parameter's default; help travels with the fields
    (`mechreward.base.options`). A field whose name the command declares itself is no option, and
    keeps its default. Where only what was `given` matters, the command gets a dictionary of that.
    """

    def decorate(command: Callable) -> Callable:
        signature = inspect.signature(command, eval_str=True)
        default = signature.parameters[parameter].default
        types = get_type_hints(type(default))
        options = {}
        for field in fields(default):
            if field.name in signature.parameters:
                continue
            value, kind, about = getattr(default, field.name), types[field.name], field.metadata
            if given:
                about = {**about, "show_default": "" if value is None else str(value)}
                value, kind = None, kind | None
            options[field.name] = inspect.Parameter(
                field.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=typer.Option(value, **about),
                annotation=kind,
            )
        parameters = []
        for name, declared in signature.parameters.items():
            parameters += options.values() if name == parameter else [declared]

        @wraps(command)
        def with_options(**arguments: Any) -> None:
            chosen = {name: arguments.pop(name) for name in options}
            if given:
                asked_for = {name: value for name, value in chosen.items() if value is not None}
                command(**arguments, **{parameter: asked_for})
            else:
                command(**arguments, **{parameter: replace(default, **chosen)})

        shown = signature.replace(parameters=parameters)
        with_options.__signature__ = shown  # pyright: ignore[reportAttributeAccessIssue]
        return with_options

    return decorate


@app.callback()
def _commands() -> None:
    """Find the sparse reward subsystem of a language model, and find out whether to believe it."""


@app.command()
@with_options_for("plan")
def demo(
    out: Out = Path("runs/demo"),
    model: Model = MAIN_JOB.model,
    task: Game = None,
    plan: Plan = MAIN_JOB,
    overwrite: Annotated[bool, typer.Option(help="Start the run in this folder anew.")] = False,
    forecast: Forecast = False,
) -> None:
    """Find value and dopamine neurons, ablate them beside every control, and write results.json and
    report.html."""
    from mechreward.experiments.rows import Results
    from mechreward.report.study_page import write
    from mechreward.studies.paper import demo as run_demo
    from mechreward.studies.study import Study

    plan = replace(plan, model=model, task=task or home_of(model))
    if forecast:
        from mechreward.studies.forecast import of_plan

        _say(str(of_plan(plan)))
        return
    study = Study.open(plan, out, overwrite, say=_say)
    results = run_demo(study)
    with study.folder.bound("results.json"):
        page = write(study.out, study.plan, study.model, results, study.splits["test"])
    told = Results.load(out / "results.json")
    _tell(told.manifest["found"], told.manifest["not_found"])
    _answer(told)
    _say(f"report: {page}")


@app.command()
@with_options_for("plan")
def paper(
    names: Annotated[
        list[str],
        typer.Argument(
            help=f"Experiments by name or id: {experiment_list()}; all is all but {BY_NAME}."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="One model instead of the bundled ones, or planted-NAME."),
    ] = None,
    task: Annotated[str | None, typer.Option(help=TASK_NAMES)] = None,
    out: Annotated[
        Path,
        typer.Option(help="Folder: one run for each model and task, and results.json."),
    ] = Path("runs/paper"),
    plan: Plan = PAPER,
    docs: Annotated[
        Path | None,
        typer.Option(help="Write the results as a page of Markdown with its pictures too."),
    ] = None,
    forecast: Forecast = False,
) -> None:
    """Repeat the paper's experiments with all their controls, on bundled models or your own."""
    from mechreward.experiments.rows import Results
    from mechreward.report.findings.rules import findings
    from mechreward.report.results_page import write_page
    from mechreward.studies.paper import reproduce

    homes = asked(model, task)
    if not homes:
        own = model or MAIN_JOB.model
        homes = [(own, task or home_of(own))]
    if forecast:
        _foresee(names, homes, plan)
        return
    results = reproduce(names, out, homes, plan, say=_say)
    for name, where in homes:
        _say(f"{name} on {where}")
        of_home = Results({}, tuple(results.where(model=name, task=where)))
        _tell(*findings(of_home))
        _answer(of_home)
    _say(f"results: {out / 'results.json'}")
    if docs:
        again = f"{results.manifest['command']} --docs {docs}"
        _say(f"page: {write_page(results, docs, again)}")


@app.command()
@with_options_for("given", given=True)
def certify(
    out: Annotated[
        Path, typer.Option(help="Folder for certificate.json and certificate.md.")
    ] = Path("runs/certificate"),
    neurons: Neurons = None,
    given: Any = CERTIFY,
    register: Annotated[
        Path | None,
        typer.Option(
            help="Measure nothing: write set, sizes, seed and thresholds with their hash to this "
            "file."
        ),
    ] = None,
    registered: Annotated[
        Path | None,
        typer.Option(
            help="Run what such a file says, on problems that were never measured in this folder."
        ),
    ] = None,
    forecast: Forecast = False,
) -> None:
    """Certify a set: decodable, sparse, causal, specific, sufficient, stable; pass, fail, or what
    to run to settle it."""
    from mechreward.causal.registration import Registration
    from mechreward.causal.registration import register as write_down
    from mechreward.experiments.choice import KINDS
    from mechreward.studies.certified import certify_in, certify_registered

    chosen = _given_neurons(out, neurons)
    require(not (register and registered), "give --register or --registered, not both.")
    require(
        not (forecast and (register or registered)),
        "--forecast goes with neither --register nor --registered.",
    )
    if registered:
        registration = Registration.load(registered)
        _as_registered(registration, given)
        same = chosen is None or chosen.to_json() == registration.neurons.to_json()
        require(same, f"{neurons} is not the set that was registered.")
        subject = Subject(**registration.subject)
        model, task = subject.open(registration.sizes["seed"])
        certificate, page = certify_registered(out, model, task, registration, subject.policy)
    else:
        plan = replace(CERTIFY, **given)
        if "task" not in given:
            plan = replace(plan, task=home_of(plan.model))
        one_of("kind of neuron", plan.kind, KINDS)
        if forecast:
            from mechreward.studies.forecast import of_certificate

            _say(str(of_certificate(plan, chosen is not None)))
            return
        if register:
            require(chosen is not None, "--register needs --neurons FILE: to choose is to measure.")
            for option in ("kind", "validation", "layers"):
                require(option not in given, f"--{option} chooses a set: --neurons names one.")
        model, task = plan.open(plan.seed)
        if register and chosen is not None:
            made = write_down(plan.subject, model, task, chosen, plan.sizes)
            _say(f"registered: {made.save(register)}, hash {made.hash}")
            return
        certificate, page = certify_in(
            out,
            model,
            task,
            chosen,
            plan.sizes,
            plan.kind,
            plan.validation,
            layers=plan.layer_numbers(model),
            policy=plan.policy,
        )
    _say(str(certificate))
    _say(f"page: {page}")


@app.command()
@with_options_for("plan")
def confidence(
    out: Annotated[
        Path, typer.Option(help="Folder for the tables and the neurons that were read.")
    ] = Path("runs/confidence"),
    model: Model = MAIN_JOB.model,
    task: Game = None,
    neurons: Neurons = None,
    plan: ConfidencePlan = CONFIDENCE,
) -> None:
    """How sure to be of answers: value neurons beside every baseline that sees as much."""
    from mechreward.studies.confident import confident_in

    plan = replace(plan, model=model, task=task or home_of(model))
    chosen = _given_neurons(out, neurons)
    opened, game = plan.open(plan.seed)
    made, _ = confident_in(
        out,
        opened,
        game,
        chosen,
        plan.sizes,
        plan.kind,
        plan.validation,
        layers=plan.layer_numbers(opened),
        policy=plan.policy,
    )
    _say(str(made))
    _say(f"results: {out / 'metrics.csv'}")


@app.command()
@with_options_for("plan")
def search(
    out: Annotated[
        Path, typer.Option(help="Folder for answers, costs and the neurons that chose.")
    ] = Path("runs/search"),
    model: Model = MAIN_JOB.model,
    task: Game = None,
    neurons: Neurons = None,
    plan: SearchPlan = SEARCH,
) -> None:
    """Answer problems by search: neurons, or any scorer, choose among candidates of each step."""
    from mechreward.studies.searched import search_in

    plan = replace(plan, model=model, task=task or home_of(model))
    chosen = _given_neurons(out, neurons)
    opened = plan.open(plan.seed)
    made = search_in(out, *opened, plan, chosen)
    _say(str(made))
    _say(f"results: {out / 'search.csv'}")


@app.command()
@with_options_for("sizes")
def bench(
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("runs/bench"),
    only: Annotated[
        list[str],
        typer.Option(
            help="A contest, P1 to P9 or growth; may be given several times. All if none."
        ),
    ] = [],  # noqa: B006
    model: Annotated[
        str,
        typer.Option(help="A bundled model, a model folder, or owner/model on the hub."),
    ] = "countdown-base",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    sizes: BenchSizes = SIZES,
    docs: Docs = None,
) -> None:
    """Race capture, rollouts, values, fits and interventions against today's tools, a parity check
    beside each."""
    from mechreward.report.bench_page import page
    from mechreward.studies.bench import bench as race

    results = race(out, only=only, model=model, device=device, sizes=sizes, say=_say)
    _say(f"results: {out / 'results.json'}")
    if docs:
        _say(f"page: {page(results, docs)}")


@app.command()
def calibrate(
    out: Out = Path("runs/calibrate"),
    seeds: Annotated[
        int,
        typer.Option(
            help="Planted models of each kind; more where V-hat comes from its exact law."
        ),
    ] = 3,
    full: Annotated[
        bool,
        typer.Option(
            help="More problems, runs and rankings: what the page of the calibration is made with."
        ),
    ] = False,
    docs: Docs = None,
) -> None:
    """Run the whole pipeline on models whose truth is known: what it finds, what fools it, whether
    intervals cover."""
    from mechreward.report.calibration_page import page
    from mechreward.report.verdicts import verdicts
    from mechreward.studies.calibrate import Calibration
    from mechreward.studies.calibrate import calibrate as run

    results = run(out, Calibration(seeds, full), say=_say)
    for line in verdicts(results):
        _say(line)
    _say(f"results: {out / 'results.json'}")
    if docs:
        _say(f"page: {page(results, docs)}")


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
        _say(f"page: {path}")


def _say(text: str) -> None:
    """Lines on the terminal: what models, files and users are called is shown, never obeyed."""
    typer.echo(visible(text, keep="\n"))


def _given_neurons(out: Path, neurons: Path | None) -> Any:
    """The set of a file, if one is given, for a command that writes to a folder."""
    from mechreward.probing.neurons import NeuronSet

    require(not out.is_file(), f"{out} is a file; --out names a folder.")
    return NeuronSet.load(neurons) if neurons else None


def _as_registered(registration: Any, given: dict[str, Any]) -> None:
    """Refuse options that were given and are not what was registered."""
    about = {**registration.subject, **registration.sizes}
    for name, value in given.items():
        was = about.get(name, "nothing of the kind")
        require(value == was, f"--{name} {value} was given; registered was {was}.")


def _foresee(names: list[str], homes: list[tuple[str, str]], plan: Plan) -> None:
    """What experiments on several homes would do and cost."""
    from mechreward.experiments.plan import experiment_ids
    from mechreward.studies.forecast import of_plan
    from mechreward.studies.paper import in_order

    wanted = in_order(experiment_ids(names))
    least = most = 0.0
    for model, task in homes:
        one = of_plan(replace(plan, model=model, task=task), wanted)
        _say(str(one))
        least, most = least + one.seconds[0], most + one.seconds[1]
    if len(homes) > 1:
        _say(f"all of them, one after the other: {duration(least)} to {duration(most)}")


def _tell(found: list[str], missed: list[str]) -> None:
    for sentence in found:
        _say(f"  found: {sentence}")
    for sentence in missed:
        _say(f"  not found: {sentence}")


def _answer(results: Any) -> None:
    """The five answers, as far as they were asked for."""
    from mechreward.report.five import table

    for line in table(results):
        _say(line)


def main() -> None:
    """Entry point of the `mechreward` command."""
    try:
        app()
    except MechRewardError as error:
        print(f"mechreward: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a folder that cannot be listed, a disk that goes away
        where = f" ({visible(str(error.filename))})" if error.filename else ""
        print(f"mechreward: {error.strerror or error}{where}. {NOTHING_LOST}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _stopped()
    except SystemExit as done:
        if done.code == STOPPED:  # typer turns Ctrl-C into this
            _stopped()
        raise


def _stopped() -> NoReturn:
    print(
        "mechreward: stopped. What was finished is kept; the same command does the rest.",
        file=sys.stderr,
    )
    sys.exit(STOPPED)


if __name__ == "__main__":
    main()
