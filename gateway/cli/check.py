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
    from gateway.config.schema import Config
    from gateway.forgetting.volume import Volume
    from gateway.release.footprint import WeighedVariant


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--rate", type=click.FloatRange(0.0), default=100.0, show_default=True, help="Requests a second, for the disk."
)
@json_option
def check(file: Path, rate: float, as_json: bool) -> None:
    """Check a config, weigh its models and say what disk it takes: every problem with file, line and key. Exit code 78
    if it is refused.
    """
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
        report |= {"models": [_entry(model) for model in models], "disk": _disk_entry(loaded.config, rate)}
        click.echo(json.dumps(report))
        return
    for note in notes:
        click.echo(f"warning: {note}", err=True)
    endpoints = ", ".join(loaded.config.endpoints)
    click.echo(f"{file}: ok; endpoints: {endpoints}; digest {loaded.digest[:12]}")
    if models:
        click.echo(_weights(models, workers))
    click.echo(_disk(loaded.config, rate))


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


def _disk_entry(config: Config, rate: float) -> dict[str, object]:
    from gateway.forgetting.volume import expected

    volume = expected(config, rate)
    return {
        "requests_per_second": rate,
        "endpoint": volume.endpoint,
        "facts_bytes_a_day": round(volume.facts),
        "facts_bytes_at_most": round(volume.held(config.retention.requests)),
        "votes_bytes_a_day": round(volume.votes),
        "spool_bytes": round(_spools(config, volume)),
    }


def _disk(config: Config, rate: float) -> str:
    """What is assumed is said: it is the dearest case."""
    from gateway.config.scalars import duration_text
    from gateway.forgetting.volume import expected

    volume, kept = expected(config, rate), config.retention.requests
    facts = f"{_gigabytes(volume.facts)} of requests and outcomes, which go after {duration_text(kept)}"
    lines = [
        f"disk at {rate:g} requests/s, a day: {_gigabytes(volume.facts + volume.votes)} in the store;"
        f" spools {_gigabytes(_spools(config, volume))} in all",
        f"  {facts}: {_gigabytes(volume.held(kept))} at most",
        f"  {_gigabytes(volume.votes)} of votes, what they count, and fold steps, which stay",
        "  as on SQLite, if each request is a unit of its own and has an outcome for every metric",
    ]
    if len(config.endpoints) > 1:
        lines.append(f"  and all are for {volume.endpoint}, of which one takes the most")
    return "\n".join(lines)


def _spools(config: Config, volume: Volume) -> float:
    """Bytes of all files: they are kept for a while, and an hour goes by until a file ends."""
    return float(min(volume.spools * (config.spool.keep + 3600.0) / 86_400.0, config.spool.max_size))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


@click.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    from gateway.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
