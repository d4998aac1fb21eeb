"""How many clients there are descriptors for."""

from __future__ import annotations

import os
import resource

import pytest

from gateway import descriptors


@pytest.mark.parametrize(
    ("room", "requests", "clients"),
    [
        (20_000, 1024, 17_952),  # as many as there may be upstreams are kept back, in use and idle
        (1_000, 1024, 500),  # but not more than half of what there is
        (2, 1024, 1),
        (10**9, 1024, descriptors.MOST),
    ],
)
def test_upstreams_need_their_share(room: int, requests: int, clients: int) -> None:
    assert descriptors.for_clients(room, requests) == clients


def test_what_is_open_already_is_no_room() -> None:
    before = descriptors.room()
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    try:
        assert descriptors.room() == before - 10
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_without_a_limit_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors.for_clients(descriptors.room(), 1024) == descriptors.MOST


def test_the_limit_is_raised_as_far_as_it_goes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        descriptors.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
