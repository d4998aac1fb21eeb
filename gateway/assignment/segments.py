"""Segments: bounded labels by which results are cut, read from request headers before assignment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.plan import SegmentPlan

OTHER = "other"  # what an unlisted or absent value becomes, so that labels stay bounded


@dataclass(frozen=True, slots=True)
class SegmentReader:
    """Reads one segment; `values` maps the header's bytes to the label."""

    header: bytes
    values: Mapping[bytes, str]

    @classmethod
    def of(cls, plan: SegmentPlan) -> SegmentReader:
        return cls(plan.header.encode(), {value.encode(): value for value in plan.values})

    def read(self, headers: Mapping[bytes, bytes]) -> str:
        return self.values.get(headers.get(self.header, b""), OTHER)
