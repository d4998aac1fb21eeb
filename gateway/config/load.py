"""A config file into a checked `Config`, or all that is wrong with it.

Spelling, values and rules are all looked at before anything is said, so that one round of mending is enough.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import ValidationError

from gateway.config import rules, tree
from gateway.config.cautions import cautions
from gateway.config.schema import Config, json_schema
from gateway.config.wording import Finding, findings
from gateway.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gateway.config.document import Document

MAX_PROBLEMS = 100  # more are counted only: nobody mends a thousand in one go


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A checked config and the file that it came from."""

    config: Config
    digest: str  # sha256 of the file's bytes, hex
    common: str  # sha256 of what nodes on one store must have alike, the endpoints as they are written, hex
    path: Path  # absolute
    text: bytes


def load(path: Path, *, serving: bool = True) -> LoadedConfig:
    """Read and check a file; raises ConfigError with every problem in it.

    Not `serving`, but only asked what it says, as where its store is, it needs neither model files nor variables.
    """
    try:
        text = read_bytes(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return parse(text, path, files=serving, variables=serving)


def parse(text: bytes, path: Path, *, files: bool = True, variables: bool = True) -> LoadedConfig:
    """Check `text` as the content of `path`, whose folder is where relative paths begin.

    Without `files` it is not asked whether its model files are there: for a config that was served from already.
    Without `variables` it is not asked what ${NAME} makes of it.
    """
    absolute = path.absolute()
    document = tree.read(text, str(path))
    config, found = _validate(document, absolute.parent)
    found += rules.check(document.data, absolute.parent, files=files, variables=variables)
    problems = document.problems + _problems(document, found)
    if problems or config is None:
        raise ConfigError(_shortened(sorted(problems, key=lambda problem: (problem.line, problem.column))))
    return LoadedConfig(config, digest_of(text), _common(document), absolute, text)


def _common(document: Document) -> str:
    """Ports, folders and the like may differ from node to node; and so may the layout of the file, and comments."""
    endpoints = document.data["endpoints"] if isinstance(document.data, dict) else None
    return digest_of(json.dumps(endpoints, sort_keys=True, default=str).encode())


def warnings(loaded: LoadedConfig) -> list[ConfigProblem]:
    """What is allowed in a loaded config but seldom meant."""
    return placed(loaded, list(cautions(loaded.config)))


def placed(loaded: LoadedConfig, found: list[Finding]) -> list[ConfigProblem]:
    """Findings about a loaded config, with the lines that they are about."""
    return _problems(tree.read(loaded.text, str(loaded.path)), found) if found else []


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file, or its first ones if it is larger than a config may be; raises OSError."""
    # O_NONBLOCK: to open a pipe without a writer would block for ever
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        return file.read(tree.MAX_BYTES + 1)


def digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError([ConfigProblem(str(path), 0, "", f"cannot be read: {error.strerror}")])


def _validate(document: Document, base: Path) -> tuple[Config | None, list[Finding]]:
    try:
        return Config.model_validate(document.data, context={"base": base}), []
    except ValidationError as error:
        told = findings(error.errors(include_url=False), document, json_schema())
        return None, list(islice(told, 10 * MAX_PROBLEMS))


def _problems(document: Document, found: Iterable[Finding]) -> list[ConfigProblem]:
    return [
        document.problem(finding.steps, finding.message, key=finding.at_key)
        for finding in found
        if not document.is_spoilt(finding.steps)
    ]


def _shortened(problems: list[ConfigProblem]) -> list[ConfigProblem]:
    rest = len(problems) - MAX_PROBLEMS
    if rest <= 0:
        return problems
    last = problems[MAX_PROBLEMS]
    return [*problems[:MAX_PROBLEMS], ConfigProblem(last.file, last.line, "", f"and {rest} more problems")]
