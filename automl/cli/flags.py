"""Makes the flags of `search` and `resume` from the declared options, and lists them by group in `--help`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from typer import BadParameter
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo
from typer.params import Option as Flag

from automl.search_spaces.names import nearest_first
from automl.settings.option import Option
from automl.settings.schema import SearchConfig


class Commands(TyperGroup):
    """The commands. The error about an unknown flag lists the known ones, nearest first."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BadParameter:
            raise
        except Exception as error:
            option = getattr(error, "option_name", None)
            if option is None or (context := getattr(error, "ctx", None)) is None:
                raise
            if context.command.name == "resume" and option in {one.flag for one in SearchConfig.options().values()}:
                error.message = f"{option} is an option of a new search: a resume cannot change it; leave it out."  # type: ignore[attr-defined]
                error.possibilities = None  # type: ignore[attr-defined]
                raise
            options = [name for param in context.command.params for name in param.opts if name.startswith("--")]
            error.message = f"There is no option {option!r}; there is {nearest_first(option, options)}."  # type: ignore[attr-defined]
            error.possibilities = None  # type: ignore[attr-defined]
            raise


class GroupedCommand(TyperCommand):
    """A command whose `--help` lists its flags under the headings of their groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                arguments = param.param_type_name == "argument"
                heading = "Arguments" if arguments else getattr(param, "rich_help_panel", None) or "Options"
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def flag(name: str, *, resume: bool = False) -> OptionInfo:
    """The flag of a declared option, for other commands that take it.

    Args:
        resume: whether the search has begun; then the help and the default are those of a resume.
    """
    return _flag_of(SearchConfig.options()[name], resume)


def with_flags(
    options: Mapping[str, Option], *, resume: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the flags of these options, in place of its parameter `**given`.

    The command receives the values of the flags that were given. Numbers and times are parsed here, so that a bad value
    gets the same message as in a TOML file and in Python.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(**values: Any) -> None:
            given = {name: values.pop(name) for name in options}
            given = {name: options[name].read_flag(value) for name, value in given.items() if value not in (None, [])}
            command(**values, **given)

        declared = inspect.signature(command, eval_str=True).parameters.values()
        arguments = [parameter for parameter in declared if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        others = [parameter for parameter in declared if parameter.kind is parameter.KEYWORD_ONLY]
        flags = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[_type_of(option) | None, _flag_of(option, resume)],
            )
            for name, option in options.items()
        ]
        call.__signature__ = inspect.Signature([*arguments, *flags, *others])  # type: ignore[attr-defined]
        return call

    return decorate


def _flag_of(option: Option, resume: bool) -> OptionInfo:
    help, default = option.help, option.default_words
    if resume and option.on_resume is not None:
        help, default = option.on_resume.help or help, option.on_resume.default
    value = option.metavar or f"<{'|'.join((option.unit_word or option.kind, *option.words))}>"
    # None is a third value of an optional switch, so it can be switched off, too.
    off = "/--" + "-".join(("no", option.key)) if option.kind == "bool" and option.optional else ""
    info: OptionInfo = Flag(
        f"{option.flag}{off}",
        help=help,
        metavar=None if option.kind == "bool" else value,
        show_default=default or False,
        rich_help_panel=option.group,
    )
    return info


def _type_of(option: Option) -> Any:
    """The type that typer parses: a text, which `Option.read_flag` turns into a number."""
    return {"bool": bool, "tuple[str, ...]": list[str]}.get(option.kind, str)
