"""Arguments of the operators as their schemas name and complete them."""

from __future__ import annotations

from typing import Any

import torch


def with_defaults(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All positional arguments of an operator, defaults filled in."""
    schema = getattr(torch.ops.robocache, name).default._schema
    rest = [
        kwargs.get(argument.name, argument.default_value)
        for argument in schema.arguments[len(args) :]
        if not argument.kwarg_only
    ]
    return (*args, *rest)


def names_of(name: str) -> list[str]:
    """Names of an operator's positional arguments."""
    schema = getattr(torch.ops.robocache, name).default._schema
    return [argument.name for argument in schema.arguments if not argument.kwarg_only]


def named(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All positional arguments of an operator by name, defaults filled in."""
    return dict(zip(names_of(name), with_defaults(name, args, kwargs), strict=True))


def as_dispatched(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments as torch hands them to Python kernels: those at the end that hold their default are not there."""
    schema = getattr(torch.ops.robocache, name).default._schema
    count = len(args)
    for argument, value in zip(reversed(schema.arguments[:count]), reversed(args), strict=True):
        if not argument.has_default_value() or isinstance(value, torch.Tensor) or value != argument.default_value:
            break
        count -= 1
    return args[:count]
