"""Every rule, by a slip in an otherwise right config: which line, which key, which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.backends.hop import OWN_FIELDS
from gateway.backends.http import HttpBackend
from gateway.config.load import LoadedConfig, parse, warnings
from gateway.config.places import parse_set_header
from gateway.errors import ConfigError
from tests.unit.config.slips import Slip, line_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RANK, FLIGHT = "endpoints.search-rank", "endpoints.flight-delay"
METRICS, EXPERIMENT = f"{FLIGHT}.metrics", f"{FLIGHT}.experiment"

VALUES: list[Slip] = [
    ("version: 1", "version: 2 #<", "version", "expected 1, the only version of this format, found 2"),
    ("version: 1", "version: true #<", "version", "found true"),
    ("version: 1\n", "", "version", "expected this key, found none (Version of this format: 1)"),
    ("0.0.0.0:8080", "8080 #<", "data.listen", 'expected host:port such as 127.0.0.1:8080 or "[::1]:8080"'),
    ("0.0.0.0:8080", "localhost:65536 #<", "data.listen", "expected host:port"),
    ("0.0.0.0:8080", "0.0.0:8080 #<", "data.listen", "expected an IP address"),
    ("0.0.0.0:8080", '"[::g]:8080" #<', "data.listen", "expected host:port"),
    ("0.0.0.0:8080", "unix:run.sock #<", "data.listen", "or unix:/path of a socket file"),
    ("0.0.0.0:8080", f"unix:/{'a' * 107} #<", "data.listen", "expected host:port"),
    ("workers: 4", "workers: 4\n  max_memory: 64MiB #<", "data.max_memory", "from 128MiB such as 2GiB, found '64MiB'"),
    ("workers: 4", "workers: 4\n  max_memory: 2147483648 #<", "data.max_memory", "found 2147483648"),
    ("workers: 4", "workers: 0 #<", "data.workers", "expected auto or a whole number from 1 to 256, found 0"),
    ("workers: 4", "workers: 257 #<", "data.workers", "found 257"),
    ("workers: 4", "workers: true #<", "data.workers", "found true"),
    ("workers: 4", "workers: 010 #<", "data.workers", "expected a decimal number, found 010"),
    ("workers: 4", "workers: 0x10 #<", "data.workers", "expected a decimal number, found 0x10"),
    ("workers: 4", "workers: #<", "data.workers", "expected a value, found nothing"),
    ("16MiB", "16MB #<", "data.max_body", "expected a size up to 1GiB such as 16MiB, 64KiB or"),
    ("16MiB", "2GiB #<", "data.max_body", "expected a size up to 1GiB"),
    ("1000", "0 #<", "data.max_connections", "expected auto or a whole number from 1 to 1048576, found 0"),
    ("256", "0 #<", "data.max_requests", "expected a number of at least 1, found 0"),
    ("256", "65537 #<", "data.max_requests", "expected a number of at most 65536, found 65537"),
    ("10.0.0.0/8", "10.0.0.1/8 #<", "data.trusted_proxies[0]", "found '10.0.0.1/8': 10.0.0.1/8 has host bits set"),
    ("10.0.0.0/8", "proxy #<", "data.trusted_proxies[0]", "expected a network such as 10.0.0.0/8, an address"),
    ("var/gateway\n", "7 #<\n", "data_dir", "expected the path of a folder, found 7"),
    (
        "sqlite:///var/other/gateway.db",
        "postgresql://u:pw@db/ab #<",
        "store",
        "expected the password as ${NAME}",
    ),
    (
        "sqlite:///var/other/gateway.db",
        "postgresql://u@db/ab?password=pw #<",
        "store",
        "expected the password as ${NAME}",
    ),
    ("sqlite:///var/other/gateway.db", "postgresql://u@db #<", "store", "expected postgresql://user@host/database"),
    ("sqlite:///var/other/gateway.db", "postgresql://u:${NOT_SET}@db/ab #<", "store", "the variable NOT_SET in the"),
    ("sqlite:///var/other/gateway.db", "mysql://u:pw@db/ab #<", "store", "found 'mysql://***@db/ab'"),
    ("sqlite:///var/other/gateway.db", '"sqlite:///:memory:" #<', "store", "expected sqlite:///path"),
    ("search-rank:", "v1: #<", "endpoints.v1", "expected a name other than 'v1'"),
    ("search-rank:", "v2: #<", "endpoints.v2", "expected a name other than 'v2'"),
    ("search-rank:", "Search: #<", "endpoints.Search", "expected a name of at most 63 lower-case letters"),
    ("search-rank:", "404: #<", "endpoints.404", "expected text as key, found 404: put it in quotes"),
    ("protocol: http", "protocol: grpc #<", f"{RANK}.protocol", "expected 'oip', 'openai' or 'http', found 'grpc'"),
    ("protocol: http", "protocol: htp #<", f"{RANK}.protocol", "did you mean 'http'?"),
    (
        '"header:X-User-Id", otherwise: request}',
        "x-user-id} #<",
        f"{RANK}.unit.from",
        "expected a request header",
    ),
    (
        "otherwise: request",
        "otherwise: reject",
        f"{RANK}.unit.otherwise",
        "expected 'request', found 'reject'",
    ),
    ('{from: "header:X-User-Id", otherwise: request}', "user #<", f"{RANK}.unit", "found 'user'"),
    ("[EWR, JFK, LGA]", "[EWR, 7] #<", f"{RANK}.segments.origin.values[1]", "found 7: put it in quotes"),
    ("[EWR, JFK, LGA]", "[other] #<", f"{RANK}.segments.origin.values[0]", "which stands for all values not"),
    ("[EWR, JFK, LGA]", "[A, B, A] #<", f"{RANK}.segments.origin.values[2]", "once, found 'A' again"),
    ("idempotent: true", "idempotent: no #<", f"{RANK}.variants.b.idempotent", "true or false, found 'no'"),
    ("timeout: 500ms", "timeout: 0.5 #<", f"{RANK}.variants.b.timeout", "say the unit, 0.5s or 0.5ms"),
    (
        "timeout: 500ms",
        "timeout: 11m #<",
        f"{RANK}.variants.b.timeout",
        "expected a duration from 1ms to 10m",
    ),
    ("models/boosted.onnx", "7 #<", f"{FLIGHT}.variants.boosted.onnx", "the path of a file, found 7"),
    ("timeout: 500ms", "timeout: 0s #<", f"{RANK}.variants.b.timeout", "expected a duration from 1ms to 10m"),
    ("timeout: 500ms", "timeot: 1s #<", f"{RANK}.variants.b.timeot", "unknown key: did you mean 'timeout'?"),
    ("a: 80%", "a: 0.8 #<", f"{RANK}.traffic.a", "expected a percentage from 0% to 100%"),
    ("a: 80%", "a: 80 #<", f"{RANK}.traffic.a", "found 80: is 80% meant?"),
    ("a: 80%", "a: -80% #<", f"{RANK}.traffic.a", "expected a percentage"),
    ("a: 80%", "a: .nan #<", f"{RANK}.traffic.a", "expected a percentage"),
    ("limit: 250ms", "limit: 0 #<", f"{METRICS}.latency.limit", "expected a duration from 1ms"),
    ("[0, 1]", "[0] #<", f"{METRICS}.brier.bounds[1]", "expected an entry"),
    ("[0, 1]", "[0, true] #<", f"{METRICS}.brier.bounds[1]", "expected a number, found true"),
    ("id: boosted-vs-logistic", "id: A b #<", f"{EXPERIMENT}.id", "expected a name"),
    (
        "expected_effect: 0.02",
        "expected_effect: .inf #<",
        f"{EXPERIMENT}.objective.expected_effect",
        "finite",
    ),
    (
        "margin: 0.005}",
        "margin: 0} #<",
        f"{EXPERIMENT}.guardrails[0].margin",
        "a number greater than 0, found 0",
    ),
    (
        "margin: 0.005}",
        "margin: 1} #<",
        f"{EXPERIMENT}.guardrails[0].margin",
        "expected a margin above 0 and below 1 for type binary, found 1",
    ),
    (
        "metric: errors, ",
        "",
        f"{EXPERIMENT}.guardrails[0].metric",
        "found none (One of the endpoint's metrics",
    ),
    ("{traffic: 50%}", "{trafic: 50%} #<", f"{EXPERIMENT}.stages[2].trafic", "did you mean 'traffic'?"),
    ("{traffic: 50%}", "{traffic: 100%} #<", f"{EXPERIMENT}.stages[2].traffic", "above 0% and below 100%"),
    ("min_units: 1000,", "min_units: 1e3,", f"{EXPERIMENT}.stages[0].min_units", "whole number, found 1e3"),
    ("alpha: 0.01", "alpha: 0 #<", f"{EXPERIMENT}.decision.alpha", "greater than 0, found 0"),
    ("alpha: 0.01", "alpha: 0.6 #<", f"{EXPERIMENT}.decision.alpha", "at most 0.5, found 0.6"),
    ("hold_at: 5", "hold_at: 1 #<", f"{EXPERIMENT}.decision.hold_at", "greater than 1"),
    ("max_units: 16000", "max_units: 0 #<", f"{EXPERIMENT}.decision.max_units", "at least 1, found 0"),
    ("automation: full", "automation: ful #<", f"{EXPERIMENT}.automation", "did you mean 'full'?"),
    ("  decision:", "  decison: #<", f"{EXPERIMENT}.decison", "did you mean 'decision'?"),
]

URLS = [
    ("ftp://rank-b", "expected a URL such as http://host:8000, found 'ftp://rank-b'"),
    ("ftp://rank-b", "expected a URL such as http://host:8000"),
    ("rank-b:8000", "expected a URL such as http://host:8000"),
    ("http://", "expected a URL such as http://host:8000"),
    ("http://rank-b:99999", "expected a URL with host and port"),
    ("http://rank-b:0", "expected a URL with host and port"),
    ("http://rank b", "expected a URL such as"),
    ("http://rank..b", "expected a host name"),
    ("http://user:secret@rank-b", "found credentials in it"),
    ("http://rank-b/?a=1", "expected a URL without query and fragment"),
    ("http://169.254.169.254/latest", "found the link-local or metadata address 169.254.169.254"),
    ("http://[fe80::1]:80", "found the link-local or metadata address fe80::1"),
    ("http://[::ffff:169.254.1.1]", "found the link-local or metadata address"),
    ("http://metadata.google.internal", "found the link-local or metadata address"),
    ("http://2852039166", "expected an IP address in its usual form"),
    ("http://0xA9FEA9FE", "expected an IP address in its usual form"),
    ("http://169.254.43518", "expected an IP address in its usual form"),
]

VARIANTS: list[Slip] = [
    ("127.0.0.1:8081", "127.0.0.1:8080", "admin.listen", "found 127.0.0.1:8080: data has 0.0.0.0:8080"),
    ("127.0.0.1:9090", "127.0.0.1:8081", "metrics.listen", "found 127.0.0.1:8081: admin has 127.0.0.1:8081"),
    ("127.0.0.1:9090", "localhost:8081", "metrics.listen", "found localhost:8081: admin has 127.0.0.1:8081"),
    ("role: challenger", "role: champion", f"{RANK}.variants", "champion, found 2 (a, b)"),
    ("role: champion", "role: challenger", f"{RANK}.variants", "champion, found none"),
    ("url: http://rank-b:8000", "onnx: models/boosted.onnx #<", f"{RANK}.variants.b.onnx", "protocol: oip"),
    ("        url: http://rank-a:8000\n", "", f"{RANK}.variants.a", "onnx and url, found neither"),
    ("boosted:\n", "boosted: #<\n        url: http://x\n", f"{FLIGHT}.variants.boosted", "url, found both"),
    (
        "models/boosted.onnx",
        "models/no.onnx #<",
        f"{FLIGHT}.variants.boosted.onnx",
        "models/no.onnx (No such",
    ),
    ("models/boosted.onnx", "models #<", f"{FLIGHT}.variants.boosted.onnx", "found a folder at"),
    ("models/boosted.onnx", "/dev/null #<", f"{FLIGHT}.variants.boosted.onnx", "something else at /dev/null"),
    (
        "models/boosted.onnx",
        "models/boosted.onnx\n        sha256: 0a1b #<",
        f"{FLIGHT}.variants.boosted.sha256",
        "expected a SHA-256 of 64 hex digits, found '0a1b'",
    ),
    *(
        (
            "models/boosted.onnx",
            f"models/boosted.onnx\n        {key}: {value} #<",
            f"{FLIGHT}.variants.boosted.{key}",
            f"found {value}",
        )
        for key, value in (("threads", 0), ("threads", 65), ("max_batch", 0), ("max_batch", 1025))
    ),
    *(
        (
            "url: http://rank-b:8000",
            f"url: http://rank-b:8000\n        {key}: {value} #<",
            f"{RANK}.variants.b.{key}",
            f"expected onnx beside {key}, which is for models in the process",
        )
        for key, value in (("sha256", "0a" * 32), ("threads", 2), ("max_batch", 1))
    ),
    *(
        (
            "url: http://rank-b:8000",
            f"url: {url}\n        ca: {ca} #<",
            f"{RANK}.variants.b.ca",
            words,
        )
        for url, ca, words in (
            ("http://rank-b:8000", "ca.pem", "expected an https:// url beside ca"),
            ("https://rank-b:8000", "no.pem", "expected a PEM file, found none at"),
            ("https://rank-b:8000", "models", "expected a PEM file, found a folder at"),
            ("https://rank-b:8000", "models/boosted.onnx", "expected a PEM file of certificates, found none in"),
        )
    ),
    (
        "models/boosted.onnx",
        "models/boosted.onnx\n        ca: ca.pem #<",
        f"{FLIGHT}.variants.boosted.ca",
        "a url beside",
    ),
    ("    traffic:\n      a: 80%\n      b: 20%\n", "", RANK, "to split 2 variants, found neither"),
    (
        "    experiment:\n",
        "    traffic: {logistic: 100%, boosted: 0%} #<\n    experiment:\n",
        f"{FLIGHT}.traffic",
        "found both: the stages of an experiment own the split",
    ),
    ("      a: 80%\n", "", f"{RANK}.traffic", "a share for every variant, found none for a"),
    ("b: 20%", "b: 20%\n      bb: 0% #<", f"{RANK}.traffic.bb", "no such variant: did you mean 'b'?"),
    ("a: 80%", "a: 79.9%", f"{RANK}.traffic", "exactly 100% together, found 99.9%"),
    ("a: 80%", "a: 80.0000000001%", f"{RANK}.traffic", "exactly 100% together, found 100.0000000001%"),
    ("a: 80%\n      b: 20%", "a: 0%\n      b: 0%", f"{RANK}.traffic", "found 0%"),
]

MEASURES: list[Slip] = [
    ("        bounds: [0, 1]\n", "", f"{METRICS}.brier", "expected bounds for type bounded"),
    ("[0, 1]", "[1, 1] #<", f"{METRICS}.brier.bounds", "bounds from low to high, found [1, 1]"),
    (
        "limit: 250ms",
        "limit: 1s\n        bounds: [0, 1] #<",
        f"{METRICS}.latency.bounds",
        "only with type bou",
    ),
    ("        limit: 250ms\n", "", f"{METRICS}.latency", "expected a limit for type latency"),
    (
        "missing: zero",
        "missing: zero\n        limit: 1s #<",
        f"{METRICS}.late.limit",
        "only with type latency",
    ),
    (
        "limit: 250ms\n        direction: decrease",
        "limit: 250ms\n        direction: increase #<",
        f"{METRICS}.latency.direction",
        "expected decrease for latency, found increase",
    ),
    (
        "errors:\n        type: binary\n        direction: decrease",
        "errors:\n        type: binary\n        direction: increase #<",
        f"{METRICS}.errors.direction",
        "expected decrease for errors, found increase",
    ),
    (
        "source: gateway",
        "source: outcome #<",
        f"{METRICS}.latency.source",
        "gateway for type latency, found out",
    ),
    ("      errors:\n", "      fails:\n", f"{METRICS}.fails.source", "this is binary by the name fails"),
    ("source: outcome", "source: gateway #<", f"{METRICS}.brier.source", "expected outcome, found gateway"),
    (
        "limit: 250ms",
        "limit: 1s\n        window: 1h #<",
        f"{METRICS}.latency.window",
        "only with source outcome",
    ),
    (
        "limit: 250ms",
        "limit: 1s\n        missing: zero #<",
        f"{METRICS}.latency.missing",
        "only with source out",
    ),
    (
        "limit: 250ms",
        "limit: 1s\n        grace: 0s #<",
        f"{METRICS}.latency.grace",
        "only with source outcome",
    ),
    (
        "limit: 250ms",
        "limit: 1s\n        max_missing: 1% #<",
        f"{METRICS}.latency.max_missing",
        "only with source",
    ),
    ("        window: 1h\n", "", f"{METRICS}.brier", "expected a window for source outcome"),
    (
        "missing: exclude",
        "missing: zero #<",
        f"{METRICS}.brier.missing",
        "exclude or bounds for type bounded, found zero",
    ),
    (
        "missing: zero",
        "missing: zero\n        max_missing: 5% #<",
        f"{METRICS}.late.max_missing",
        "only with mis",
    ),
]

EXPERIMENTS: list[Slip] = [
    (
        "      boosted:\n        role: challenger\n        onnx: models/boosted.onnx\n",
        "",
        EXPERIMENT,
        "expected from one to 8 challengers, found none",
    ),
    (
        "metric: brier",
        "metric: brir #<",
        f"{EXPERIMENT}.objective.metric",
        "found 'brir': did you mean 'brier'?",
    ),
    (
        "        expected_effect: 0.02\n        min_effect: 0.01\n",
        "",
        f"{EXPERIMENT}.objective",
        "expected expected_effect or min_effect above 0, found neither",
    ),
    (
        "min_effect: 0.01",
        "min_effect: 0.03 #<",
        f"{EXPERIMENT}.objective.min_effect",
        "0.03 above expected_effe",
    ),
    (
        "expected_effect: 0.02",
        "expected_effect: 2 #<",
        f"{EXPERIMENT}.objective.expected_effect",
        "expected an effect below 1 for type bounded, found 2",
    ),
    ("{metric: errors,", "{metric: error, ", f"{EXPERIMENT}.guardrails[0].metric", "did you mean 'errors'?"),
    (
        "{metric: latency,",
        "{metric: errors, ",
        f"{EXPERIMENT}.guardrails[1].metric",
        "once, found 'errors' again",
    ),
    (
        "{metric: latency,",
        "{metric: brier, ",
        f"{EXPERIMENT}.guardrails[1].metric",
        "another metric than the obj",
    ),
    (
        "{traffic: 10%}",
        "{traffic: 1%, name: x} #<",
        f"{EXPERIMENT}.stages[1].traffic",
        "more than 1% of the sta",
    ),
    (
        "{traffic: 10%}",
        "{traffic: 9%, name: traffic-1%} #<",
        f"{EXPERIMENT}.stages[1].name",
        "each name once",
    ),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), VALUES + VARIANTS + MEASURES + EXPERIMENTS)
def test_a_slip_is_named_with_line_and_key(
    problems: Callable[[str], list[str]], valid: str, old: str, new: str, key: str, words: str
) -> None:
    assert old in valid
    text = valid.replace(old, new, 1)
    found = problems(text)
    place = f"{line_of(text, key)}: {key}: "
    assert [problem for problem in found if problem.startswith(place) and words in problem], (place, found)


@pytest.mark.parametrize(("url", "words"), URLS)
def test_an_upstream_must_be_a_plain_address_of_ones_own(
    problems: Callable[[str], list[str]], valid: str, url: str, words: str
) -> None:
    text = valid.replace("http://rank-b:8000", f'"{url}" #<')
    (problem,) = problems(text)
    assert problem.startswith(f"{line_of(text, '')}: {RANK}.variants.b.url: ")
    assert words in problem
    assert "secret" not in problem


def test_columns_are_named(path: Path, valid: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(valid.replace("workers: 4", "workers: 0").encode(), path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == (str(path), 4, 12)


def test_all_problems_are_told_at_once_in_the_order_of_the_file(
    problems: Callable[[str], list[str]], valid: str
) -> None:
    text = valid.replace("workers: 4", "workers: 0").replace("a: 80%", "a: 79%")
    text = text.replace("role: champion", "role: challenger").replace("metric: errors", "metric: error")
    text = text.replace("timeout: 500ms", "timeot: 500ms").replace("automation: full", "automation: none")
    keys = [problem.split(": ")[1].rsplit(".", 1)[-1] for problem in problems(text)]
    assert keys == [
        "workers",
        "variants",
        "timeot",
        "traffic",
        "variants",
        "metric",
        "automation",
    ]


def test_one_wrong_part_does_not_spread(problems: Callable[[str], list[str]], valid: str) -> None:
    """A default that cannot be computed, a list that has lost its entries: consequences are not reported."""
    assert len(problems(valid.replace("traffic: 10%", "traffic: ten"))) == 1
    assert len(problems(valid.replace("role: challenger", "role: challanger"))) == 2
    assert len(problems(valid.replace("type: bounded", "type: bound"))) == 1
    assert len(problems(valid.replace("data_dir: var/gateway", "data_dir: []"))) == 1


def test_nothing_to_serve_is_refused(problems: Callable[[str], list[str]], valid: str) -> None:
    head = valid[: valid.index("endpoints:")]
    assert problems(head + "endpoints: {}\n") == ["16: endpoints: expected at least 1 entry, found 0"]
    assert problems(head)[0].startswith("1: endpoints: expected this key, found none")
    text = head + "endpoints:\n  one: {protocol: http, variants: {}}\n"
    assert problems(text) == ["17: endpoints.one.variants: expected at least 1 entry, found 0"]


def test_segments_are_bounded(problems: Callable[[str], list[str]], valid: str) -> None:
    values = ", ".join(f"v{number}" for number in range(51))
    (problem,) = problems(valid.replace("EWR, JFK, LGA", values))
    assert "segments.origin.values: expected at most 50 entries, found 51" in problem
    more = "".join(f"      s{number}: {{from: 'header:x', values: [a]}}\n" for number in range(8))
    (problem,) = problems(valid.replace("      origin:\n", f"{more}      origin:\n"))
    assert "segments: expected at most 8 entries, found 9" in problem


def test_an_experiment_id_belongs_to_one_endpoint(problems: Callable[[str], list[str]], valid: str) -> None:
    flight = valid[valid.index("  flight-delay:") :]
    (problem,) = problems(valid + flight.replace("flight-delay:", "flight-again:"))
    assert "flight-again.experiment.id: expected an id of its own" in problem
    assert "endpoint flight-delay has it" in problem


@pytest.mark.parametrize(
    ("listen", "refused"),
    [
        ("127.0.0.1:0", False),
        ("0.0.0.0:0", False),
        ("127.0.0.2:8081", False),
        ("127.0.0.1:8081", True),
        ("0.0.0.0:8081", True),
        ("localhost:8081", True),
        ('"[::]:8081"', True),
        ('"[::1]:8081"', False),
        ("admin.example:8081", False),
    ],
)
def test_ports_must_differ_where_hosts_overlap(
    problems: Callable[[str], list[str]], valid: str, listen: str, refused: bool
) -> None:
    assert bool(problems(valid.replace("127.0.0.1:9090", listen))) is refused


def test_a_message_never_shows_credentials(problems: Callable[[str], list[str]], valid: str) -> None:
    text = valid.replace("http://rank-a:8000", "htp://user:s3cret@rank-a").replace(
        "sqlite:///var/other", "postgresql://user:s3cret@db/"
    )
    assert len(problems(text)) == 2
    assert not any("s3cret" in problem for problem in problems(text))


def test_no_warnings_without_need(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    assert warnings(accepted(valid)) == []


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("127.0.0.1:8081", "0.0.0.0:8081", "admin.listen", "lets everyone on the network steer"),
        ("window: 1h", "window: 30d #<", f"{METRICS}.brier.window", "30d: no outcome is counted before"),
        ("min_duration: 1h", "min_duration: 31d", f"{EXPERIMENT}.stages", "(31d in all, max_duration 30d)"),
        ("min_units: 1000", "min_units: 20000", f"{EXPERIMENT}.stages", "(20000 in all, max_units 16000)"),
        ("margin: 0.005", "margin: 0.0001", f"{EXPERIMENT}.guardrails[0].margin", "0.0001 is so small"),
    ],
)
def test_what_is_seldom_meant_is_a_warning(
    accepted: Callable[[str], LoadedConfig], valid: str, old: str, new: str, key: str, words: str
) -> None:
    text = valid.replace(old, new, 1)
    loaded = accepted(text)
    (warning,) = warnings(loaded)
    assert str(warning).startswith(f"{loaded.path}:{line_of(text, key)}: {key}: ")
    assert words in warning.message


@pytest.mark.parametrize("name", sorted(OWN_FIELDS))
def test_a_header_that_no_worker_sets_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be set"):
        HttpBackend("http://127.0.0.1:9", headers=[(name, b"x")])
    with pytest.raises(ValueError, match="which is the gateway's own"):
        parse_set_header(name.decode().title())
