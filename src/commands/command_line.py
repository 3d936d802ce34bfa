"""Read a command's arguments: options, files of options, and a one-line error for anything that cannot be read."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from ..errors import ConfigError

T = TypeVar("T")


def read_arguments(config_type: type[T], arguments: Sequence[str], program: str) -> T:
    """Parse the arguments into the command's configuration; `--help` prints the help and exits.

    `--config FILE` adds the options in FILE: TOML or JSON, nested like the configuration, such as a run's
    train_config.json. Options on the command line override those in the file. Raises ConfigError, in one line, for
    arguments or a file that cannot be read.
    """
    _name_real_defaults(config_type)
    given, file = _without_config(arguments)
    options = {} if file is None else file_options(file)
    # After those on the command line, so that a list in the file does not swallow a positional argument.
    from_file = [word for name, words in options.items() if name not in _names(given) for word in words]
    description = (
        f"{config_type.__doc__} --config FILE reads options from a TOML or JSON file; the command line overrides them."
    )
    try:
        return _parse(lambda: tyro.cli(config_type, args=[*given, *from_file], prog=program, description=description))
    except ConfigError as error:
        if file is None:
            raise
        option = re.search(r"^[\w.]+(?=:)|(?<=--)[\w.-]+", str(error))  # as our own checks or tyro name it
        if option and _canonical(option.group()) in options.keys() - _names(given):
            raise ConfigError(f"{file}: {error}") from None
        raise ConfigError(f"{error} (beside the options in {file})") from None


def _name_real_defaults(config_type: Any) -> None:
    """Leave `(default: None)` out of the help: what an option is when it is not given stands in its description."""
    for cls in config_type.__mro__:
        _name_own_defaults(cls)


@cache  # once: each time would add another hint, and make every later call slower
def _name_own_defaults(cls: Any) -> None:
    if not dataclasses.is_dataclass(cls):
        return
    hints, fields = get_type_hints(cls, include_extras=True), {field.name for field in dataclasses.fields(cls)}
    for name in fields & vars(cls).get("__annotations__", {}).keys():
        cls.__annotations__[name] = Annotated[hints[name], _HINT]
        inner = get_args(hints[name])[0] if get_origin(hints[name]) is Annotated else hints[name]
        if dataclasses.is_dataclass(inner):
            _name_real_defaults(inner)


_HINT = tyro.conf.arg(help_behavior_hint=lambda label: "" if label in ("None", "", "''") else f"(default: {label})")


def _without_config(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without `--config FILE`, and the file."""
    rest, file = list(arguments), None
    while (place := next((i for i, a in enumerate(rest) if a.split("=")[0] == "--config"), None)) is not None:
        _, equals, value = rest[place].partition("=")
        values = rest[place + 1 : place + 2] if not equals else [value]
        if not values or not values[0] or values[0].startswith("--") or file is not None:
            raise ConfigError(f"--config: found {' '.join(values) or 'nothing'}, expected one file of options")
        file = Path(values[0])
        del rest[place : place + (1 if equals else 2)]
    return rest, file


def _canonical(option: str) -> str:
    """An option's name as `file_options` has it: without `no-`, and with hyphens."""
    prefix, dot, last = option.split("=")[0].removeprefix("--").replace("_", "-").rpartition(".")
    return prefix + dot + last.removeprefix("no-")


def _names(arguments: Sequence[str]) -> set[str]:
    return {_canonical(argument) for argument in arguments if argument.startswith("--")}


def file_options(path: Path) -> dict[str, list[str]]:
    """The options in a TOML or JSON file, by name, each as it would be written on the command line.

    Raises ConfigError if the file is unreadable or does not hold a table of options.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # both parsers' errors are ValueErrors
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: not readable as options in TOML or JSON ({reason})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: found {type(content).__name__}, expected a table of options")
    return table_options(content, str(path))


def table_options(content: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """The options in a nested table, by name, each as it would be written on the command line.

    Raises ConfigError, beginning with `where`, if one is there twice or is no plain value.
    """
    options: dict[str, list[str]] = {}
    for name, value in _leaves(content, ""):
        if name in options:
            raise ConfigError(f"{where}: found {name} twice, expected each option once")
        if isinstance(value, list) and any(isinstance(item, (list, Mapping)) for item in value):
            raise ConfigError(
                f"{where}: {name}: found {json.dumps(value, default=str)[:120]}, expected numbers or text"
            )
        options[name] = _words(name, value)
    return options


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        full = prefix + name.replace("_", "-")
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{full}.")
        else:
            yield full, value


def _words(name: str, value: Any) -> list[str]:
    """An option as command-line words; null becomes None."""
    if isinstance(value, bool):
        prefix, dot, last = name.rpartition(".")
        return [f"--{name}" if value else f"--{prefix}{dot}no-{last}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    text = str(value)
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def _parse(parse: Callable[[], T]) -> T:
    """Call tyro; if it rejects the arguments, raise ConfigError with its message."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="tyro")  # AUTO stands in for numbers
            return parse()
    except SystemExit as exit_:
        if not exit_.code:  # --help
            raise
        output.seek(0)
        output.truncate()
    finally:
        sys.stderr.write(output.getvalue())
    # tyro draws a box as wide as the terminal: parse again with a terminal so wide that no word is split.
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(SystemExit))
        stack.enter_context(contextlib.redirect_stderr(output))
        stack.enter_context(_terminal_width(100_000))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module="tyro")
        parse()
    raise ConfigError(in_one_line(output.getvalue()))


def in_one_line(box: str) -> str:
    """The text of tyro's error box in one line: sections joined by semicolons, without the title.

    Where the terminal has no box-drawing characters, the title is the first section.
    """
    sections = [""]
    for line in re.findall(r"^[^╭╰\n]+$", box, re.MULTILINE):
        text = line.strip(" │")
        if text and set(text) <= set("─-"):
            sections.append("")
        else:
            sections[-1] += f" {text}"
    if "│" not in box:
        del sections[0]
    message = "; ".join(section.strip() for section in sections)
    message = message.replace("Argument helptext: ", "expected ").replace("{None}|", "")
    # What each type of a union makes of a text is tyro's own business.
    message = re.sub(
        r"no type matching \S+ could be instantiated from \[(.*?)\]\. +Got errors: .*?(?=; expected|$)",
        r"found \1",
        message,
    )
    return message.replace("For full helptext, run: ", "run ").replace("For full helptext, ", "")


@contextlib.contextmanager
def _terminal_width(columns: int) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
