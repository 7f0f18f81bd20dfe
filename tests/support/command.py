"""The command line, in this process."""

from click.testing import CliRunner, Result

from dlink.cli.main import dlink


def call(*args: object, code: int = 0, **given: str) -> Result:
    """`dlink` with these arguments; it must exit with `code`. `given` is CliRunner's, such as input."""
    result = CliRunner().invoke(dlink, [str(a) for a in args], **given)
    assert result.exit_code == code, result.output
    return result
