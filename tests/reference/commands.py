"""Run the command line as a user does."""

import typer
from typer.testing import CliRunner

from camlucida import CamlucidaError
from camlucida.cli import main


def run(capsys, *arguments):
    """Exit code, stdout and the lines of stderr; no command shows a traceback."""
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err.splitlines()


def invoke(app, *arguments):
    """What one command or group gives; an error that is neither an exit nor words is raised."""
    if not isinstance(app, typer.Typer):
        alone = typer.Typer()
        alone.command()(app)
        app = alone
    found = CliRunner().invoke(app, [str(a) for a in arguments])
    if not isinstance(found.exception, SystemExit | CamlucidaError | None):
        raise found.exception
    return found
