"""Constructor checks: a wrong value is refused with the value, what is allowed and what to do."""

from importlib.util import find_spec


def whole(name: str, value: int, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")


def fraction(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r} must be a number in [0, 1): 0 switches it off")


def switch(name: str, value: bool) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be true or false")


def choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown: choose from {', '.join(allowed)}")


def heads(dim: int, count: int) -> None:
    """The width must split evenly into heads."""
    whole("d_model", dim)
    whole("heads", count)
    if dim % count:
        fitting = [str(n) for n in range(1, dim + 1) if dim % n == 0]
        shown = ", ".join(fitting[:8]) + (", ..." if len(fitting) > 8 else "")
        raise ValueError(f"d_model={dim} is not divisible by heads={count}: choose heads from {shown}")


def factory(name: str, value) -> None:
    """Something to call with the width, or None for the default."""
    if value is not None and not callable(value):
        raise ValueError(f"{name}={value!r} must build a module from the width: choose one with model/{name}=<name>")


def package(name: str, what: str) -> None:
    """An optional package must be installed."""
    if find_spec(name) is None:
        raise ValueError(f"{what} needs the package {name}, which is not installed: pip install {name}")
