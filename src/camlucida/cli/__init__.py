"""The command line: ``camlucida COMMAND``, one file per command.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from camlucida.cli.app import app as page
from camlucida.cli.audit.all_and_sanity import all_, sanity
from camlucida.cli.audit.group import audit
from camlucida.cli.audit.registered import Audits
from camlucida.cli.audit.sham import logit_shift, residual_logits, sham
from camlucida.cli.audit.trials import grades, layer_scores
from camlucida.cli.audit.trials import metrics as metrics_trial
from camlucida.cli.cases import cases
from camlucida.cli.cells import cells
from camlucida.cli.compare import compare
from camlucida.cli.data import data
from camlucida.cli.demo import demo
from camlucida.cli.evaluate import evaluate
from camlucida.cli.examples import examples
from camlucida.cli.explain import explain
from camlucida.cli.layers import layers
from camlucida.cli.layers_report import layers_report
from camlucida.cli.listings import audits, methods, metrics, targets
from camlucida.cli.report import report
from camlucida.cli.reproduce.diff_tables import diff_table1, diff_table2, diff_table3
from camlucida.cli.reproduce.group import reproduce
from camlucida.cli.shared.console import complain, shown
from camlucida.cli.shared.options import Command
from camlucida.cli.summary import summary
from camlucida.cli.survey import survey
from camlucida.cli.train.group import train
from camlucida.cli.verify import verify
from camlucida.common.errors import CamlucidaError
from camlucida.common.plugins import load_plugins
from camlucida.common.version import __version__

app = typer.Typer(
    name="camlucida",
    help="Visual explanations of image models that you can trust.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version() -> None:
    """Print the version."""
    typer.echo(f"camlucida {__version__}")


_DAILY, _JUDGING, _RESEARCH = "Daily use", "Comparisons and audits", "Research"

_command: Callable[..., None]
app.command("app", cls=Command, rich_help_panel=_DAILY)(page)
for _command in (
    explain, cases, examples, demo, layers, methods, metrics, targets, audits, verify, version
):  # fmt: skip
    app.command(cls=Command, rich_help_panel=_DAILY)(_command)
for _command in (evaluate, summary, compare, report):
    app.command(cls=Command, rich_help_panel=_JUDGING)(_command)
app.add_typer(data, name="data", rich_help_panel=_DAILY)
app.add_typer(audit, name="audit", cls=Audits, rich_help_panel=_JUDGING)
for _command in (layers_report, cells):
    app.command(cls=Command, rich_help_panel=_RESEARCH)(_command)
app.add_typer(survey, name="survey", rich_help_panel=_RESEARCH)
app.add_typer(train, name="train", rich_help_panel=_RESEARCH)
app.add_typer(reproduce, name="reproduce", rich_help_panel=_RESEARCH)
audit.command("all", cls=Command)(all_)
for _command in (sanity, sham, logit_shift, residual_logits, grades, metrics_trial, layer_scores):
    audit.command(cls=Command)(_command)
for _command in (diff_table1, diff_table2, diff_table3):
    reproduce.command(cls=Command)(_command)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.")
    ] = False,
) -> None:
    if show_version:
        version()
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    else:
        load_plugins()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows ``camlucida``; by default the process's own arguments.

    Returns:
        The exit code: 0 when all went well; 2 when the arguments are wrong, a photo failed or a method was
        left out; 130 after Ctrl-C; 1 for a fault that nobody foresaw. Whatever goes wrong is one line on stderr;
        with ``CAMLUCIDA_DEBUG=1`` the traceback follows.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # names that the terminal cannot show
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"camlucida(\.|$)")
        warnings.showwarning = lambda message, *_args, **_options: complain(f"note: {message}")
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if unusable := next((text for text in given if "\0" in text), None):
        return _refuse(f"the argument {shown(unusable)!r} holds a NUL character", 2)
    try:
        code = app(args=given, prog_name="camlucida", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except SystemExit as error:  # a closed pipe: `camlucida methods | head`
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        return _refuse(*_in_words(error))
    code = code if isinstance(code, int) else 0
    if code == 130:
        complain("stopped")
    return code


def _in_words(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, CamlucidaError):
        return str(error), 2
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's own errors
        command = getattr(getattr(error, "ctx", None), "command_path", "camlucida")
        return f"{error.format_message()} ({command} --help shows what there is)", 2
    name = type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:  # such as a name that is too long
        file = shown(str(error.filename))
        return f"{error.strerror or name}: '{file}'", 2
    if name == "OutOfMemoryError":  # torch's, which is not imported here
        return "the device has not enough memory; try a smaller --batch-size", 1
    return f"unexpected {name}: {error} (CAMLUCIDA_DEBUG=1 shows the traceback)", 1


def _refuse(text: str, code: int) -> int:
    complain(text)
    if os.environ.get("CAMLUCIDA_DEBUG", "0") not in {"", "0"}:
        traceback.print_exc()
    return code
