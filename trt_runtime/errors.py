"""Everything dlink raises on purpose, by what would put it right.

DlinkError
  BadInput      an image, option or file of the caller's can't be used
  BadModel      a model file or checkpoint is damaged, foreign or of another version: make it again
  CheckFailed   a file was made or measured and does not hold what it must
  Closed        a model was used after its close(): open it again

A message names the file or option, what was found, and what would do. Anything else that escapes is a bug and keeps
its traceback. A missing package stays Python's own ModuleNotFoundError.
"""


class DlinkError(Exception):
    """Base of the errors of this package."""


class BadInput(DlinkError, ValueError):
    """An image, option or file of the caller's can't be used."""


class BadModel(DlinkError, ValueError):
    """A model file or checkpoint is damaged, foreign or of another version."""


class CheckFailed(DlinkError, RuntimeError):
    """A network does not hold what was asked of it."""


class Closed(DlinkError, RuntimeError):
    """A model was used after its close()."""
