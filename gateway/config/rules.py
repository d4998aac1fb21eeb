"""What endpoints, their variants and their split must be to one another.

A rule is a function from a draft to findings. Metrics have theirs in `metric_rules`, experiments in
`experiment_rules`.
"""

from __future__ import annotations

import itertools
import os
import ssl
import stat
from decimal import Decimal
from typing import TYPE_CHECKING

from gateway.config import schema
from gateway.config.draft import EndpointDraft, endpoint_drafts, mapping, part
from gateway.config.experiment_rules import experiment_findings
from gateway.config.metric_rules import metric_findings, ordered
from gateway.config.scalars import percent_text, shown
from gateway.config.secret_rules import secret_findings
from gateway.config.wording import Finding, closest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.config.document import Steps, Value


# What only an upstream has.
UPSTREAMS = (
    *("ca", "model", "headers", "retries", "health"),
    *("connect_timeout", "first_byte_timeout", "idle_timeout", "stream_timeout"),
)


def check(raw: Value, base: Path, *, files: bool = True, variables: bool = True) -> Iterator[Finding]:
    """All findings that no value has by itself; `files` for those about model files, too, `variables` for those about
    secrets that the environment has."""
    yield from _listeners(raw)
    drafts = list(endpoint_drafts(raw, base))
    if variables:
        yield from secret_findings(raw, drafts)
    yield from _experiment_ids(drafts)
    for draft in drafts:
        yield from _segments(draft)
        yield from _covariates(draft)
        yield from _champion(draft)
        yield from _models(draft, files)
        yield from _mask(draft)
        yield from _split(draft)
        yield from metric_findings(draft)
        yield from experiment_findings(draft)


def _listeners(raw: Value) -> Iterator[Finding]:
    kinds: dict[str, type[schema.Data | schema.Admin | schema.Metrics]] = {
        "data": schema.Data,
        "admin": schema.Admin,
        "metrics": schema.Metrics,
    }
    sections = ((name, part(kind, mapping(raw).get(name, {}))) for name, kind in kinds.items())
    open_ports = [(name, section.listen) for name, section in sections if section is not None]
    for (first, one), (second, other) in itertools.combinations(open_ports, 2):
        if one.overlaps(other):
            yield Finding((second, "listen"), f"expected a port of its own, found {other}: {first} has {one}")


def _experiment_ids(drafts: list[EndpointDraft]) -> Iterator[Finding]:
    # the id is the salt of the assignment and the key of the evidence: shared, it would mix two experiments
    users: dict[str, str] = {}
    for draft in drafts:
        experiment = draft.experiment
        if experiment is None or not isinstance(experiment.id, str):
            continue
        first = users.setdefault(experiment.id, str(draft.steps[-1]))
        if first != draft.steps[-1]:
            message = f"expected an id of its own, found {shown(experiment.id)}: endpoint {first} has it"
            yield Finding((*experiment.steps, "id"), message)


def _mask(draft: EndpointDraft) -> Iterator[Finding]:
    if draft.mask_model is True and draft.protocol == "http":
        message = "expected protocol oip or openai, whose answers name a model"
        yield Finding((*draft.steps, "mask_model"), message, at_key=True)


def _segments(draft: EndpointDraft) -> Iterator[Finding]:
    for name, segment in draft.segments.items():
        values = segment.values if segment else ()
        for index, value in enumerate(values):
            if value in values[:index]:
                steps = (*draft.steps, "segments", name, "values", index)
                yield Finding(steps, f"expected each value once, found {shown(value)} again")


def _covariates(draft: EndpointDraft) -> Iterator[Finding]:
    for name, covariate in draft.covariates.items():
        if covariate is not None:
            yield from ordered((*draft.steps, "covariates", name, "bounds"), covariate.bounds)


def _champion(draft: EndpointDraft) -> Iterator[Finding]:
    if not draft.roles or any(role not in ("champion", "challenger") for role in draft.roles.values()):
        return
    champions = [name for name, role in draft.roles.items() if role == "champion"]
    if len(champions) != 1:
        found = f"{len(champions)} ({', '.join(champions)})" if champions else "none"
        message = f"expected exactly one variant with role: champion, found {found}"
        yield Finding((*draft.steps, "variants"), message)


def _models(draft: EndpointDraft, files: bool) -> Iterator[Finding]:
    for name, variant in draft.variants.items():
        steps = (*draft.steps, "variants", name)
        if variant is None:
            continue
        if (variant.onnx is None) == (variant.url is None):
            found = "neither" if variant.onnx is None else "both"
            yield Finding(steps, f"expected exactly one of onnx and url, found {found}")
        if variant.onnx is not None and draft.protocol in ("http", "openai"):
            message = f"expected protocol: oip for an ONNX model, found protocol: {draft.protocol}"
            yield Finding((*steps, "onnx"), message)
        if variant.onnx is not None and files:
            yield from _there((*steps, "onnx"), variant.onnx, "an ONNX file")
        yield from _of_files(steps, variant)
        yield from _of_upstreams(steps, variant)
        if variant.ca is not None and variant.url is not None:
            yield from _authorities((*steps, "ca"), variant.ca, variant.url, files)
        if variant.model is not None and draft.protocol == "http":
            yield Finding(
                (*steps, "model"), "expected protocol oip or openai, whose requests name a model", at_key=True
            )


def _of_files(steps: Steps, variant: schema.Variant) -> Iterator[Finding]:
    for key in ("sha256", "threads", "max_batch"):
        if variant.onnx is None and getattr(variant, key) is not None:
            message = f"expected onnx beside {key}, which is for models in the process"
            yield Finding((*steps, key), message, at_key=True)


def _of_upstreams(steps: Steps, variant: schema.Variant) -> Iterator[Finding]:
    if variant.url is None:
        for key in UPSTREAMS:
            if getattr(variant, key) not in (None, {}):
                yield Finding((*steps, key), f"expected a url beside {key}, which is for upstreams", at_key=True)


def _authorities(steps: Steps, ca: Path, urls: tuple[str, ...], files: bool) -> Iterator[Finding]:
    if not all(url.lower().startswith("https:") for url in urls):
        yield Finding(steps, "expected an https:// url beside ca, whose certificate is to be trusted", at_key=True)
    elif files:
        missing = list(_there(steps, ca, "a PEM file"))
        yield from missing or _certificates(steps, ca)


def _certificates(steps: Steps, ca: Path) -> Iterator[Finding]:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
    except OSError as error:  # of which SSLError is one
        yield Finding(steps, f"expected a PEM file of certificates, found none in {ca} ({error.strerror or error})")


def _there(steps: Steps, path: Path, kind: str) -> Iterator[Finding]:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        yield Finding(steps, f"expected {kind}, found none at {path} ({error.strerror})")
        return
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "something else"
        yield Finding(steps, f"expected {kind}, found {found} at {path}")


def _split(draft: EndpointDraft) -> Iterator[Finding]:
    if draft.traffic is not None and draft.experiment is not None:
        message = "expected traffic or experiment, found both: the stages of an experiment own the split"
        yield Finding((*draft.steps, "traffic"), message, at_key=True)
    elif draft.traffic is not None:
        yield from _traffic((*draft.steps, "traffic"), draft.traffic, draft)
    elif draft.experiment is None and len(draft.variants) > 1:
        message = f"expected traffic or experiment to split {len(draft.variants)} variants, found neither"
        yield Finding(draft.steps, message)


def _traffic(steps: Steps, traffic: dict[str, Decimal | None], draft: EndpointDraft) -> Iterator[Finding]:
    unknown = [name for name in traffic if name not in draft.variants] if draft.variants else []
    missing = [name for name in draft.variants if name not in traffic]
    for name in unknown:
        yield Finding((*steps, name), f"no such variant{closest(name, draft.variants)}", at_key=True)
    if missing:
        yield Finding(steps, f"expected a share for every variant, found none for {', '.join(missing)}")
    shares = [share for share in traffic.values() if share is not None]
    if traffic and len(shares) == len(traffic) and sum(shares) != 1:
        total = percent_text(sum(shares, Decimal(0)))
        yield Finding(steps, f"expected shares of exactly 100% together, found {total}")
