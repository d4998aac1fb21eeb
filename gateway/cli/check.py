"""`gateway check` and `gateway schema`: configs before they are served."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.common import json_option, reporting, worker_count

if TYPE_CHECKING:
    from gateway.release.footprint import WeighedVariant


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Check a config and weigh its models: every problem with file, line and key. Exit code 78 if it is refused."""
    from gateway.config.load import load, warnings
    from gateway.release.footprint import Scales
    from gateway.release.models import check_models

    scales = Scales()
    with reporting(as_json):
        loaded = load(file)
        check_models(loaded, scales)
    notes = [str(note) for note in warnings(loaded)]
    models = list(scales.of(loaded.config))
    workers = worker_count(loaded.config)
    if as_json:
        report = {"ok": True, "digest": loaded.digest, "warnings": notes, "workers": workers}
        click.echo(json.dumps(report | {"models": [_entry(model) for model in models]}))
        return
    for note in notes:
        click.echo(f"warning: {note}", err=True)
    endpoints = ", ".join(loaded.config.endpoints)
    click.echo(f"{file}: ok; endpoints: {endpoints}; digest {loaded.digest[:12]}")
    if models:
        click.echo(_weights(models, workers))


def _entry(model: WeighedVariant) -> dict[str, object]:
    return {
        "endpoint": model.endpoint,
        "variant": model.variant,
        "file": str(model.file),
        "sha256": model.weight.digest,
        "size_bytes": model.weight.size,
        "resident_bytes": model.weight.resident,
    }


def _weights(models: Sequence[WeighedVariant], workers: int) -> str:
    rows = [_row(model) for model in models]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    each = sum(model.weight.resident for model in models)
    lines.append(f"models in memory: {_size(each)} a worker, {_size(workers * each)} with {workers}")
    return "\n".join(lines)


def _row(model: WeighedVariant) -> tuple[str, ...]:
    weight = model.weight
    return (
        f"{model.endpoint}/{model.variant}",
        min(str(model.file), os.path.relpath(model.file), key=len),
        f"sha256 {weight.digest[:12]}",
        f"{_size(weight.size)} on disk",
        f"{_size(weight.resident)} in memory",
    )


def _size(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB" if size >= 1 << 20 else f"{size / (1 << 10):.1f} KiB"


@click.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    from gateway.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
