"""What a right config means, key by key, and that its spelling survives."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import LoadedConfig, parse
from gateway.config.scalars import (
    duration_text,
    parse_duration,
    parse_percent,
    parse_size,
    percent_text,
    size_text,
)
from gateway.config.schema import EVERY_REQUEST, json_schema
from gateway.config.tree import read
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SMALL = """\
version: 1
endpoints:
  one:
    protocol: http
    variants: {only: {role: champion, url: "http://upstream:8000/base/"}}
"""


def test_every_key_has_the_value_that_is_written(
    accepted: Callable[[str], LoadedConfig], valid: str, path: Path
) -> None:
    config = accepted(valid).config
    assert (str(config.data.listen), config.data.workers, config.data.max_body) == (
        "0.0.0.0:8080",
        4,
        16 << 20,
    )
    assert (config.data.max_connections, config.data.max_requests) == (1000, 256)
    assert [str(network) for network in config.data.trusted_proxies] == ["10.0.0.0/8", "::1/128", "unix"]
    assert config.data_dir == path.parent / "var/gateway"
    assert config.store_path == path.parent / "var/other/gateway.db"
    rank, flight = config.endpoints["search-rank"], config.endpoints["flight-delay"]
    assert rank.unit.header == "x-user-id"
    assert rank.segments["origin"].values == ("EWR", "JFK", "LGA")
    assert rank.shares() == {"a": Decimal("0.8"), "b": Decimal("0.2")}
    assert (rank.variants["a"].timeout, rank.variants["b"].timeout) == (10.0, 0.5)
    assert flight.unit is EVERY_REQUEST
    assert flight.variants["boosted"].onnx == path.parent / "models/boosted.onnx"
    assert flight.variants["boosted"].timeout == 1.0
    assert flight.champion == "logistic"
    assert flight.metrics["brier"].max_missing == Decimal("0.05")
    experiment = flight.experiment
    assert experiment is not None
    assert [stage.name for stage in experiment.stages] == ["traffic-1%", "traffic-10%", "traffic-50%"]
    assert [stage.traffic for stage in experiment.stages] == [Decimal("0.01"), Decimal("0.1"), Decimal("0.5")]
    assert experiment.decision.max_duration == 30 * 86400


def test_a_small_config_has_the_defaults(accepted: Callable[[str], LoadedConfig], path: Path) -> None:
    loaded = accepted(SMALL)
    config = loaded.config
    assert str(config.data.listen) == "0.0.0.0:8080"
    assert config.data.workers == "auto"
    assert str(config.admin.listen) == "127.0.0.1:8081"
    assert str(config.metrics.listen) == "127.0.0.1:9090"
    assert config.store_path == path.parent / "var/gateway/gateway.db"
    assert config.endpoints["one"].shares() == {"only": 1}
    assert config.endpoints["one"].variants["only"].url == ("http://upstream:8000/base",)
    assert loaded.text == SMALL.encode()
    assert loaded.path == path


def test_clients_have_the_defaults(accepted: Callable[[str], LoadedConfig]) -> None:
    data = accepted(SMALL).config.data
    assert (data.max_connections, data.max_requests, data.trusted_proxies) == ("auto", 1024, ())


def test_metrics_and_experiments_have_the_defaults(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    short = valid[: valid.index("      decision:")].replace("        expected_effect: 0.02\n", "")
    short = short.replace("        missing: zero\n", "").replace("        missing: exclude\n", "")
    flight = accepted(short).config.endpoints["flight-delay"]
    experiment = flight.experiment
    assert experiment is not None
    assert experiment.automation == "full"
    assert experiment.objective.expected_effect == 0.02
    decision = experiment.decision
    assert (decision.alpha, decision.alpha_rollback, decision.alpha_errors) == (0.01, 0.01, 0.001)
    assert (decision.alpha_guardrail, decision.alpha_srm, decision.hold_at) == (0.05, 0.001, 5)
    assert (decision.futility, decision.max_units, decision.on_inconclusive) == (
        "last_stage",
        None,
        "champion",
    )
    stage = experiment.stages[1]
    assert (stage.min_duration, stage.min_units, stage.min_challenger_units) == (0.0, 0, 50)
    missing = {name: (metric.missing, metric.grace) for name, metric in flight.metrics.items()}
    assert missing["brier"] == ("exclude", 0.0)
    assert missing["late"] == ("zero", 0.0)
    assert missing["latency"] == missing["errors"] == (None, None)


def test_a_config_spelled_out_again_is_the_same(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    for text in (valid, valid.replace("16MiB", "1000"), SMALL):
        config = accepted(text).config
        spelled = config.model_dump(mode="json", exclude_none=True)
        assert accepted(json.dumps(spelled)).config == config


def test_a_path_is_taken_from_the_folder_that_the_config_is_found_in(tmp_path: Path, valid: str) -> None:
    """`..` behind a symbolic link means what it means to the system."""
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "real/models").mkdir()
    for name in ("logistic.onnx", "boosted.onnx"):
        (tmp_path / "real/models" / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "real/inner")
    text = valid.replace("models/", "../models/")
    loaded = parse(text.encode(), tmp_path / "link/gateway.yaml")
    assert loaded.config.endpoints["flight-delay"].variants["boosted"].onnx == (
        tmp_path / "link/../models/boosted.onnx"
    )
    loaded = parse(text.encode(), tmp_path / "real/inner/gateway.yaml")
    assert loaded.config.endpoints["flight-delay"].variants["boosted"].onnx == tmp_path / "real/models/boosted.onnx"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("30d", 2592000),
        (0, 0),
        ("0s", 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.decimals(0, 9999, places=3))
def test_durations_survive_their_spelling(seconds: Decimal) -> None:
    assert parse_duration(duration_text(float(seconds))) == float(seconds)


@given(st.decimals(0, 100, places=6))
def test_shares_are_exact(percent: Decimal) -> None:
    share = parse_percent(f"{percent:f}%")
    assert share == percent / 100
    assert parse_percent(percent_text(share)) == share


@given(st.integers(1, 1 << 30))
def test_sizes_survive_their_spelling(size: int) -> None:
    text = size_text(size)
    assert parse_size(int(text) if text.isdigit() else text) == size


def _properties(part: object) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(part, dict):
        yield from part.get("properties", {}).items()
        for inner in part.values():
            yield from _properties(inner)


def test_ports_may_be_socket_files_of_their_own(accepted: Callable[[str], LoadedConfig]) -> None:
    sections = 'data: {{listen: "unix:/run/{}.sock", max_memory: 2GiB}}\nadmin: {{listen: "unix:/run//b.sock"}}\n'
    config = accepted(SMALL + sections.format("a")).config
    assert (str(config.data.listen), str(config.admin.listen)) == ("unix:/run/a.sock", "unix:/run/b.sock")
    assert config.data.max_memory == 2 << 30
    assert config.model_dump(mode="json")["data"]["max_memory"] == "2GiB"
    schema = json_schema()
    assert fits(read((SMALL + sections.format("a")).encode(), "").data, schema, schema)
    with pytest.raises(ConfigError, match=r"admin.listen: expected a port of its own, found unix:/run/b.sock"):
        accepted(SMALL + sections.format("b"))


def test_the_json_schema_describes_every_key() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for name, key in _properties(schema):
        target = schema["$defs"].get(key.get("$ref", "").rsplit("/", 1)[-1], {})
        assert key.get("description") or target.get("description"), name


def test_the_json_schema_is_closed_and_speaks_the_spelling_of_people() -> None:
    schema = json_schema()
    parts = [schema, *schema["$defs"].values()]
    assert all(part["additionalProperties"] is False for part in parts)
    assert all(part["description"] for part in parts)
    endpoint, stage = schema["$defs"]["Endpoint"]["properties"], schema["$defs"]["Stage"]["properties"]
    assert endpoint["variants"]["additionalProperties"] is False
    assert "%" in stage["traffic"]["pattern"]
    assert stage["min_duration"]["default"] == "0s"
    assert {"const": "request", "type": "string"} in endpoint["unit"]["anyOf"]
    assert schema["$defs"]["Unit"]["required"] == ["from"]
    json.dumps(schema, allow_nan=False)


def fits(value: object, part: dict[str, Any], schema: dict[str, Any]) -> bool:
    """As much of a JSON Schema validator as the published schema needs."""
    if "$ref" in part:
        return fits(value, schema["$defs"][part["$ref"].rsplit("/", 1)[-1]], schema)
    if "anyOf" in part:
        return any(fits(value, choice, schema) for choice in part["anyOf"])
    if value not in part.get("enum", [part.get("const", value)]):
        return False
    if not isinstance(value, KINDS[part["type"]]) or (isinstance(value, bool) and part["type"] != "boolean"):
        return False
    if isinstance(value, str):
        return re.search(part.get("pattern", ""), value) is not None
    if isinstance(value, list):
        inner = part.get("prefixItems") or [part["items"]] * len(value)
        return len(inner) == len(value) and all(map(fits, value, inner, [schema] * len(value)))
    if isinstance(value, dict):
        return value.keys() >= set(part.get("required", [])) and all(
            fits(inner, _of_key(key, part), schema) for key, inner in value.items()
        )
    if isinstance(value, int | float) and value <= part.get("exclusiveMinimum", value - 1):
        return False
    return not isinstance(value, int | float) or part.get("minimum", value) <= value <= part.get("maximum", value)


KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "null": type(None),
}
NOTHING: dict[str, Any] = {"enum": []}


def _of_key(key: str, part: dict[str, Any]) -> dict[str, Any]:
    for pattern, inner in part.get("patternProperties", {}).items():
        if re.search(pattern, key):
            return dict(inner)
    other = part.get("additionalProperties") or NOTHING
    return dict(part.get("properties", {}).get(key, other))


def test_the_json_schema_takes_what_the_gateway_takes(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    schema = json_schema()
    for text in (valid, SMALL):
        assert fits(read(text.encode(), "").data, schema, schema)
        assert fits(accepted(text).config.model_dump(mode="json", exclude_none=True), schema, schema)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 2"),
        ("a: 80%", "a: 0.8"),
        ("timeout: 500ms", "timeout: 5"),
        ("timeout: 500ms", "timeot: 500ms"),
        ("16MiB", "16MB"),
        ("workers: 4", "workers: 0"),
        ("search-rank:", "Search:"),
        ("protocol: http", "protocol: grpc"),
        ("header:X-User-Id", "x-user-id"),
        ("[0, 1]", "[0]"),
        ("idempotent: true", "idempotent: yes"),
        ("http://rank-b", "ftp://rank-b"),
        ("sqlite:", "postgresql:"),
    ],
)
def test_the_json_schema_refuses_what_the_gateway_refuses(valid: str, old: str, new: str) -> None:
    schema = json_schema()
    assert not fits(read(valid.replace(old, new, 1).encode(), "").data, schema, schema)
