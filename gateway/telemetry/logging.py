"""Logs on standard error: one JSON object a line, or plain text on a terminal.

`GATEWAY_LOG_FORMAT` (`json` or `text`) decides where the terminal should not.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

import orjson

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, process, logger, message, and whatever `extra` brought."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        milliseconds = int(record.msecs)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{stamp}.{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "msg": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(entry, default=str).decode()
        except TypeError:  # a lone surrogate, an integer beyond 64 bits: rare, and no reason to lose the line
            return json.dumps(entry, default=str)


def configure(process: str, level: int = logging.INFO) -> None:
    """Send all logs of this process to standard error. `process` names it in every line."""
    handler = logging.StreamHandler(sys.stderr)
    wanted = os.environ.get("GATEWAY_LOG_FORMAT") or ("text" if sys.stderr.isatty() else "json")
    if wanted == "text":
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {process}: %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(JsonFormatter(process))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("uvicorn.error", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
