"""`gateway verify`: does a store agree with itself?"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from gateway.cli.common import json_option
from gateway.cli.replay import DIFFERS, looking, store_argument

if TYPE_CHECKING:
    from gateway.audit.finding import Finding


@click.command()
@store_argument
@json_option
def verify(store: str, as_json: bool) -> None:
    """Look for what cannot be in STORE: rows that contradict one another, counts that are not those of the rows, a
    ledger that was changed. Prints a line for each, and the hash of the ledger's last row: with a note of it, anybody
    can tell later that nothing before was changed.

    STORE is sqlite:///PATH, the path of a SQLite file, postgresql://…, or a config file; it is only read, also while
    the gateway runs. Exit codes: 0 nothing was found, 1 something was, 2 it cannot be read, 78 the config is refused.
    """
    import msgspec

    from gateway.audit.verify import head
    from gateway.audit.verify import verify as verified
    from gateway.cli.progress import stages

    findings: list[Finding] = []
    with looking(store, as_json) as opened:
        with stages() as at:
            for finding in verified(opened, at):
                findings.append(finding)
                if not as_json:
                    click.echo(str(finding))
        rows, digest = head(opened)
    if as_json:
        ledger = {"rows": rows, "hash": digest}
        click.echo(json.dumps({"ok": not findings, "findings": msgspec.to_builtins(findings), "ledger": ledger}))
    else:
        found = "1 finding" if len(findings) == 1 else f"{len(findings) or 'no'} findings"
        click.echo(f"{store}: {found}; ledger of {rows} rows, hash {digest or 'none'}")
    if findings:
        sys.exit(DIFFERS)
