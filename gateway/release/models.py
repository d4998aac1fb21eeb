"""Do the model files of a config fit together? What no schema can see, found before anything is served."""

from __future__ import annotations

from gateway.backends.onnx import ModelError
from gateway.config.load import LoadedConfig
from gateway.config.schema import Endpoint
from gateway.errors import ConfigError, ConfigProblem
from gateway.release.compile import Artifacts


def check_models(loaded: LoadedConfig, artifacts: Artifacts) -> None:
    """Every file loads, and all models of an endpoint share one signature; raises ConfigError."""
    problems = [
        ConfigProblem(str(loaded.path), 0, f"endpoints.{name}.variants.{variant}.onnx", message)
        for name, endpoint in loaded.config.endpoints.items()
        for variant, message in _problems(endpoint, artifacts)
    ]
    if problems:
        raise ConfigError(problems)


def _problems(endpoint: Endpoint, artifacts: Artifacts) -> list[tuple[str, str]]:
    problems: list[tuple[str, str]] = []
    first: tuple[str, str] | None = None
    for name, variant in endpoint.variants.items():
        if variant.onnx is None:
            continue
        try:
            signature = str(artifacts.read(variant.onnx)[1])
        except (ModelError, OSError) as error:
            problems.append((name, str(error)))
            continue
        first = first or (name, signature)
        if signature != first[1]:
            problems.append((name, f"is {signature}, but {first[0]} is {first[1]}"))
    return problems
