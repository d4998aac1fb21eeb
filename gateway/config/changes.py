"""What is different between two configs: for logs, for the restart that some keys need, for caution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.schema import Config

_AT_START = ("data.listen", "data.workers", "data.max_memory", "admin.listen", "metrics.listen", "data_dir", "store")
_NAMED_LISTS = {"stages": "name", "guardrails": "metric"}  # lists whose entries people know by a name
_ABSENT = "(none)"


def diff(old: Config, new: Config) -> list[str]:
    """One line for each difference, such as `endpoints.search-rank.traffic.b: 20% -> 30%`."""
    return list(_differences("", _spelling(old), _spelling(new)))


def needs_restart(old: Config, new: Config) -> list[str]:
    """The changed keys that take effect only when the gateway starts again."""
    return [key for key in _AT_START if _value(old, key) != _value(new, key)]


def removals(old: Config, new: Config) -> list[str]:
    """The endpoints, variants, metrics and experiments that `new` no longer has."""
    kept = set(_parts(new))
    return [part for part in _parts(old) if part not in kept]


def _parts(config: Config) -> Iterator[str]:
    for name, endpoint in config.endpoints.items():
        yield f"endpoints.{name}"
        yield from (f"endpoints.{name}.variants.{variant}" for variant in endpoint.variants)
        yield from (f"endpoints.{name}.metrics.{metric}" for metric in endpoint.metrics)
        if endpoint.experiment is not None:
            yield f"endpoints.{name}.experiment {endpoint.experiment.id}"


def _spelling(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_none=True)


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for step in key.split("."):
        value = getattr(value, step)
    return value


def _differences(key: str, old: Any, new: Any) -> Iterator[str]:
    old, new = _by_name(key, old), _by_name(key, new)
    if isinstance(old, dict) and isinstance(new, dict):
        for step in [*old, *(step for step in new if step not in old)]:
            inner = f"{key}.{step}".removeprefix(".")
            if step not in new or step not in old:
                yield from _one_sided(inner, old.get(step), new.get(step))
            else:
                yield from _differences(inner, old[step], new[step])
        if key.endswith(tuple(_NAMED_LISTS)) and list(old) != list(new) and sorted(old) == sorted(new):
            yield f"{key}: order {_text(list(old))} -> {_text(list(new))}"
    elif old != new:
        yield f"{key}: {_told(key, old)} -> {_told(key, new)}"


def _one_sided(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict):
        yield f"{key}: removed"
    elif isinstance(new, dict):
        yield f"{key}: added"
    else:
        yield f"{key}: {_told(key, old)} -> {_told(key, new)}"


def _told(key: str, value: Any) -> str:
    """What a log may tell: the value of a header that is set may be a secret, and a key is one."""
    secret = ".headers." in key or key == "outcomes.keys" or key.startswith("keys.")
    return "***" if value is not None and secret else _text(value)


def _by_name(key: str, value: Any) -> Any:
    name = _NAMED_LISTS.get(key.rsplit(".", 1)[-1])
    return {entry[name]: entry for entry in value} if name and isinstance(value, list) else value


def _text(value: Any) -> str:
    if value is None:
        return _ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_text(entry) for entry in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_text(entry)}' for key, entry in value.items())}}}"
    return str(value)
