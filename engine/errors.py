"""Errors that a user can mend: one line on stderr, no traceback, an exit code of their own."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """The command, a config or a file is wrong: says what, where and what would be right. Exit code 2."""

    exit_code = 2


class Diverged(UserError):
    """The loss became NaN or infinite: the last good checkpoint is kept. Exit code 3."""

    exit_code = 3


def one_line(error: BaseException) -> str:
    """The error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def nearest(name: str, valid: Iterable[str], most: int = 3) -> str:
    """`did you mean a, b?`, or every valid name where none is near."""
    valid = sorted(set(valid))
    near = difflib.get_close_matches(name, valid, n=most, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    shown = ", ".join(valid[:20]) + (", ..." if len(valid) > 20 else "")
    return f"choose from {shown}" if valid else "there is none to choose from"


@contextmanager
def user_errors(*more: type[Exception]) -> Iterator[None]:
    """Building models and data is where wrong values surface: what is raised there is the user's to mend.

    `more`: other kinds of errors that stand for wrong values in this place.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, KeyError, *more) as error:
        raise UserError(one_line(error)) from error
