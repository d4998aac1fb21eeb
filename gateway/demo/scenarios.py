"""The four stories of the demo. A scenario chooses a challenger and nothing else: what happens is up to the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

ENDPOINT = "flight-delay"
CHAMPION = "logistic"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A challenger and what is to be expected of it."""

    challenger: str  # name of the variant, and of its file
    story: str


SCENARIOS = {
    "better": Scenario("boosted", "boosted trees that also see the weather: better than the champion"),
    "harmful": Scenario("broken", "the same trees with two features swapped on the way: much worse"),
    "same": Scenario("twin", "the champion retrained on another sample: no better, no worse"),
    "crashing": Scenario("crashing", "a model that raises on real flights"),
}


def assets() -> Path:
    """Where models and config lie: inside an installed wheel, or at the root of a checkout."""
    packaged = Path(__file__).parent / "assets"
    return packaged if packaged.exists() else Path(__file__).parents[2]


def write_config(scenario: Scenario, folder: Path) -> Path:
    """The demo's config with this scenario's challenger, in `folder`, which also becomes its data directory."""
    models = assets() / "models" / "flight_delay"
    yaml = YAML(typ="safe", pure=True)
    document = yaml.load(assets() / "config" / "demo.yaml")
    document["data_dir"] = str(folder / "data")
    document["model_roots"] = [str(models)]
    endpoint = document["endpoints"][ENDPOINT]
    (example,) = (variant for variant in endpoint["variants"].values() if variant["role"] == "challenger")
    endpoint["variants"] = {
        CHAMPION: {**endpoint["variants"][CHAMPION], "onnx": str(models / f"{CHAMPION}.onnx")},
        scenario.challenger: {**example, "onnx": str(models / f"{scenario.challenger}.onnx")},
    }
    endpoint["experiment"]["id"] = f"{scenario.challenger}-vs-{CHAMPION}"
    path = folder / "gateway.yaml"
    with path.open("w") as file:
        yaml.dump(document, file)
    return path
