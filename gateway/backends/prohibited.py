"""Addresses that no upstream has: a machine's own metadata service gives credentials to whoever asks from there."""

from __future__ import annotations

import ipaddress

METADATA_NAMES = frozenset({"metadata.google.internal"})
_METADATA = frozenset({"fd00:ec2::254", "100.100.100.200"})  # those that are not link-local


def is_prohibited(address: str) -> bool:
    """Of an IP address, in any of its forms."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return parsed.is_link_local or str(parsed) in _METADATA
