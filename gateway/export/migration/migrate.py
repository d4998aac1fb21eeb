"""One migration from beginning to end."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.errors import GatewayError, StoreError
from gateway.export.migration.copying import Copying, Tell
from gateway.export.migration.heads import LedgerHead, fingerprint, ledger_head
from gateway.export.migration.sides import publish, source_of, target_of
from gateway.export.migration.verifying import Digest, verify
from gateway.export.source import Named


class NotTheSame(GatewayError):
    """The copy is not the original. The target is not used."""

    reason = "verification"


class Migrated(NamedTuple):
    """What was copied, and found to be the same."""

    tables: dict[str, Digest]
    ledger: LedgerHead
    resumed: bool
    unread: list[int]  # spools that were not read to their end

    def content(self) -> dict[str, Any]:
        return {
            "tables": {name: {"rows": one.rows, "checksum": one.checksum} for name, one in self.tables.items()},
            "ledger": {"rows": self.ledger.rows, "head": self.ledger.hash},
            "resumed": self.resumed,
            "unread_spools": self.unread,
        }


def migrate(origin: Named, target_url: str, tell: Tell) -> Migrated:
    """Copy, compare, publish. Raises StoreError, after which it may be run again; NotTheSame."""
    if origin.url == target_url:
        raise StoreError("source and target are the same store")
    with source_of(origin) as source:
        with target_of(target_url, source) as target:
            before, copying = fingerprint(source), Copying(source, target)
            resumed = copying.begin(before)
            copying.copy(tell)
            found = verify(source, target, copying, tell)
            if fingerprint(source) != before:
                raise StoreError("the source has gone on while it was copied: stop what writes it, drop the target")
            if found.problems:
                raise NotTheSame("; ".join(found.problems))
            copying.finish()
            head = ledger_head(target)
        spools = source.streams()
        publish(target_url, max((stream.spool for stream in spools), default=0) + 1)
    unread = sorted({stream.spool for stream, cursor in spools.items() if not cursor.finished})
    return Migrated(found.tables, head, resumed, unread)
