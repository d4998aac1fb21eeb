"""Metric types, roles, several challengers, shadow, holdback: every rule by a slip, every default, every spelling."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from gateway.config.experiment_rules import MAX_CHALLENGERS
from gateway.config.load import LoadedConfig, warnings
from gateway.config.metric import Metric
from gateway.config.places import Prediction, parse_prediction
from gateway.config.scalars import parse_relative, percent_text
from gateway.config.schema import json_schema
from gateway.config.tree import read
from gateway.evidence.definition import LOG_LOSS_CAP
from tests.unit.config.slips import Slip, line_of
from tests.unit.config.test_config_schema import fits

if TYPE_CHECKING:
    from collections.abc import Callable

SHOP, FLIGHTS = "endpoints.shop", "endpoints.flights"
METRICS, EXPERIMENT = f"{SHOP}.metrics", f"{SHOP}.experiment"
GUARDRAILS = f"{EXPERIMENT}.guardrails"
SCORES, TRIAL = f"{FLIGHTS}.metrics", f"{FLIGHTS}.experiment"

COUNTS: list[Slip] = [
    ("        cap: 5\n", "", f"{METRICS}.orders", "expected a cap for type count, such as cap: 20, found none"),
    ("cap: 5", "cap: 0 #<", f"{METRICS}.orders.cap", "expected a number greater than 0, found 0"),
    ("cap: 5", "cap: .inf #<", f"{METRICS}.orders.cap", "expected a finite number"),
    ("scale: winsorised", "cap: 5 #<", f"{METRICS}.revenue.cap", "expected only with type count, found with type unb"),
    (
        "cap: 5",
        "cap: 5\n        scale: rank #<",
        f"{METRICS}.orders.scale",
        "only with type unbounded, found with type co",
    ),
    ("scale: winsorised", "scale: ranks #<", f"{METRICS}.revenue.scale", "found 'ranks': did you mean 'rank'?"),
    (
        "scale: winsorised",
        "bounds: [0, 1] #<",
        f"{METRICS}.revenue.bounds",
        "only with type bounded, found with type unb",
    ),
    ("[0, 5]", "[-1e308, 1e308] #<", f"{METRICS}.stars.bounds", "expected bounds from low to high"),
]

AGGREGATES: list[Slip] = [
    (
        "aggregate: sum",
        "aggregate: mean #<",
        f"{METRICS}.revenue.aggregate",
        "expected 'first', 'sum', 'count' or 'max'",
    ),
    (
        "denominator: orders",
        "denominator: orders\n        aggregate: sum #<",
        f"{METRICS}.basket.aggregate",
        "expected only with type binary, bounded, count or unbounded, found with type ratio",
    ),
    (
        "label_independent: true",
        "aggregate: first #<",
        f"{SCORES}.loss.aggregate",
        "expected only with type binary, bounded, count or unbounded, found with type score",
    ),
    (
        "limit: 1s",
        "limit: 1s\n        aggregate: max #<",
        f"{METRICS}.latency.aggregate",
        "expected only with source outcome, found with source gateway",
    ),
    (
        "bounds: [0, 5]\n        aggregate: max",
        "bounds: [0, 5]\n        aggregate: sum #<",
        f"{METRICS}.stars.aggregate",
        "expected first or max for type bounded, found sum: it leaves the bounds",
    ),
    (
        "aggregate: first",
        "aggregate: count #<",
        f"{METRICS}.returned.aggregate",
        "first or max for type binary, found cou",
    ),
    (
        "aggregate: max\n        direction",
        "missing: zero #<\n        direction",
        f"{METRICS}.stars.missing",
        "exclude or bounds for type bounded, found zero",
    ),
    ("loss: log_loss", "missing: zero #<", f"{SCORES}.loss.missing", "exclude or bounds for type score, found zero"),
    (
        "missing: zero",
        "missing: zero\n        max_missing: 5% #<",
        f"{METRICS}.revenue.max_missing",
        "only with missing: exclude or bounds, found with missing: zero",
    ),
]

RATIOS: list[Slip] = [
    (
        "        numerator: items\n",
        "",
        f"{METRICS}.basket",
        "expected a numerator for type ratio, such as numerator: clic",
    ),
    (
        "        denominator: orders\n",
        "",
        f"{METRICS}.basket",
        "expected a denominator for type ratio, such as denominator",
    ),
    ("numerator: items", "numerator: item #<", f"{METRICS}.basket.numerator", "found 'item': did you mean 'items'?"),
    (
        "denominator: orders",
        "denominator: revenue #<",
        f"{METRICS}.basket.denominator",
        "expected a metric of type count, found 'revenue' of type unbounded",
    ),
    ("denominator: orders", "denominator: basket #<", f"{METRICS}.basket.denominator", "found 'basket' of type ratio"),
    (
        "denominator: orders",
        "denominator: items #<",
        f"{METRICS}.basket.denominator",
        "expected another metric than the numerator, found 'items'",
    ),
    (
        "window: 12h",
        "window: 6h",
        f"{METRICS}.basket.denominator",
        "expected a metric with the window of items, 12h, found 6h of orders",
    ),
    (
        "grace: 30m",
        "grace: 0s",
        f"{METRICS}.basket.denominator",
        "expected a metric with the grace of items, 30m, found 0s of orders",
    ),
    (
        "denominator: orders",
        "denominator: orders\n        window: 12h #<",
        f"{METRICS}.basket.window",
        "expected no window for type ratio, found one: it has that of its counts",
    ),
    (
        "denominator: orders",
        "denominator: orders\n        grace: 0s #<",
        f"{METRICS}.basket.grace",
        "expected no grace for type ratio, found one",
    ),
    (
        "denominator: orders",
        "denominator: orders\n        bounds: [0, 1] #<",
        f"{METRICS}.basket.bounds",
        "expected only with type bounded, found with type ratio",
    ),
    (
        "denominator: orders\n        direction: increase\n        source: outcome",
        "denominator: orders\n        direction: increase\n        source: gateway #<",
        f"{METRICS}.basket.source",
        "expected outcome, found gateway: of itself the gateway knows",
    ),
    (
        "cap: 5",
        "cap: 5\n        numerator: items #<",
        f"{METRICS}.orders.numerator",
        "expected only with type ratio, found w",
    ),
]

PREDICTIONS: list[Slip] = [
    (
        "probability[1]\n        direction: decrease",
        "probability[1]\n        direction: increase #<",
        f"{SCORES}.loss.direction",
        "expected decrease for type score, which is a loss, found increase",
    ),
    ("loss: log_loss", "loss: logloss #<", f"{SCORES}.loss.loss", "did you mean 'log_loss'?"),
    (
        "        bounds: [-60, 600]\n",
        "",
        f"{SCORES}.minutes",
        "expected bounds of label and prediction for loss absolute_err",
    ),
    (
        "loss: log_loss",
        "loss: log_loss\n        bounds: [0, 1] #<",
        f"{SCORES}.loss.bounds",
        "expected only with loss: absolute_error, found with loss: log_loss",
    ),
    (
        "cap: 5",
        "cap: 5\n        loss: brier #<",
        f"{METRICS}.orders.loss",
        "expected only with type score, found with type c",
    ),
    (
        "cap: 5",
        "cap: 5\n        label_independent: true #<",
        f"{METRICS}.orders.label_independent",
        "expected only with type score",
    ),
    (
        "cap: 5",
        "cap: 5\n        prediction: x #<",
        f"{METRICS}.orders.prediction",
        "expected only with type score, found",
    ),
    (
        "prediction: probability[1]",
        "prediction: probability[x] #<",
        f"{SCORES}.loss.prediction",
        "an element such as probability, probability[1] or \"[1]\" in quotes, found 'probability[x]'",
    ),
    ("prediction: probability[1]", "prediction: [1] #<", f"{SCORES}.loss.prediction", "in quotes, found a list"),
    (
        "absolute_error\n        bounds: [-60, 600]\n        prediction: probability[1]",
        "absolute_error\n        bounds: [-60, 600]\n        prediction: probability #<",
        f"{SCORES}.minutes.prediction",
        "expected one prediction for all metrics of type score, found 'probability': loss has 'probability[1]'",
    ),
    (
        "        prediction: probability[1]\n",
        "",
        f"{SCORES}.minutes.prediction",
        "found 'probability[1]': loss has the last element",
    ),
    (
        "protocol: oip",
        "protocol: http",
        f"{SCORES}.loss.type",
        "expected protocol: oip for type score, whose predictions are tensors, found protocol: http",
    ),
    (
        "protocol: oip",
        "protocol: openai",
        f"{SCORES}.loss.type",
        "expected protocol: oip for type score, whose predictions are tensors, found protocol: openai",
    ),
]

ROLES: list[Slip] = [
    (
        "min_effect: 0.005",
        "min_effect: 0",
        f"{EXPERIMENT}.objective.require",
        "a min_effect above 0 for require: min_ef",
    ),
    (
        "expected_effect: 0.02",
        "expected_effect: 0.005 #<",
        f"{EXPERIMENT}.objective.expected_effect",
        "expected more than the min_effect that is required, found 0.005",
    ),
    (
        "require: min_effect",
        "require: effect #<",
        f"{EXPERIMENT}.objective.require",
        "expected 'improvement' or 'min_effect'",
    ),
    (
        "expected_effect: 0.02",
        "expected_effect: 1 #<",
        f"{EXPERIMENT}.objective.expected_effect",
        "expected an effect below 1 for type unbounded, found 1",
    ),
    (
        "expected_effect: 0.02\n        min_effect: 0.005",
        "min_effect: 0.6 #<",
        f"{EXPERIMENT}.objective.min_effect",
        "expected an effect below 1 for type unbounded, found 1.2, twice min_effect",
    ),
    (
        "min_effect: 0.005",
        "min_effect: 1e-12 #<",
        f"{EXPERIMENT}.objective.min_effect",
        "expected an effect of at least 1e-09 for type unbounded, found 1e-12",
    ),
    (
        "expected_effect: 0.1",
        "expected_effect: 10 #<",
        f"{TRIAL}.objective.expected_effect",
        "expected an effect below 10 for type score, found 10",
    ),
    (
        "relative_margin: 20%, floor: 0.002",
        "floor: 0.1",
        f"{GUARDRAILS}[0]",
        "exactly one of margin and relative_margin, fo",
    ),
    ("margin: 0.5", "margin: 0.5, relative_margin: 1%", f"{GUARDRAILS}[2]", "margin and relative_margin, found both"),
    (
        "margin: 0.5",
        "margin: 0.5, floor: 0.1",
        f"{GUARDRAILS}[2].floor",
        "only with relative_margin, found with margin",
    ),
    ("margin: 0.5", "margin: 5", f"{GUARDRAILS}[2].margin", "a margin above 0 and below 5 for type bounded, found 5"),
    (
        "margin: 0.5",
        "margin: 1e-10",
        f"{GUARDRAILS}[2].margin",
        "a margin above 0 and below 5 for type bounded, found 1e-10",
    ),
    ("margin: 0.5", "margin: -1", f"{GUARDRAILS}[2].margin", "expected a number greater than 0, found -1"),
    ("relative_margin: 2.5%", "margin: 5", f"{GUARDRAILS}[3].margin", "below 5 for type count, found 5"),
    ("relative_margin: 150%", "margin: 1", f"{GUARDRAILS}[1].margin", "below 1 for type latency, found 1"),
    ("margin: 100}", "margin: 660}", f"{TRIAL}.guardrails[0].margin", "below 660 for type score, found 660"),
    (
        "relative_margin: 2.5%",
        "relative_margin: 2.5",
        f"{GUARDRAILS}[3].relative_margin",
        "above 0% up to 1000% such as 2%",
    ),
    ("relative_margin: 2.5%", "relative_margin: 2", f"{GUARDRAILS}[3].relative_margin", "found 2: is 2% meant?"),
    (
        "relative_margin: 2.5%",
        "relative_margin: 0%",
        f"{GUARDRAILS}[3].relative_margin",
        "above 0% up to 1000% such as 2%, found '0%'",
    ),
    ("relative_margin: 150%", "relative_margin: 1001%", f"{GUARDRAILS}[1].relative_margin", "up to 1000%"),
    (
        "relative_margin: 2.5%",
        "relative_margin: 100%",
        f"{GUARDRAILS}[3].relative_margin",
        "expected less than 100% for direction increase, found 100%",
    ),
    (
        "{metric: orders, relative_margin: 2.5%}",
        "{metric: basket, relative_margin: 2.5%}",
        f"{GUARDRAILS}[3].relative_margin",
        "expected margin for type ratio, found relative_margin, which is for type binary, bounded, count or latency",
    ),
    (
        "margin: 100}",
        "relative_margin: 5%}",
        f"{TRIAL}.guardrails[0].relative_margin",
        "expected margin for type score, found relative_margin",
    ),
    (
        "bounds: [0, 5]\n        aggregate: max",
        "bounds: [1, 5]\n        aggregate: max",
        f"{GUARDRAILS}[2].relative_margin",
        "expected margin for bounds that do not begin at 0, found relative_margin for [1, 5]",
    ),
    (
        "margin: 150%",
        "margin: 150%, floor: 0.1",
        f"{GUARDRAILS}[1].floor",
        "expected no floor for type latency, found one",
    ),
    ("floor: 0.002", "floor: 1", f"{GUARDRAILS}[0].floor", "expected a floor below 1 for type binary, found 1"),
    ("floor: 0.002", "floor: -1", f"{GUARDRAILS}[0].floor", "expected a number of at least 0, found -1"),
    ("        - basket\n", "        - baskt #<\n", f"{EXPERIMENT}.signals[0]", "found 'baskt': did you mean 'basket'?"),
    (
        "        - returned\n",
        "        - basket #<\n",
        f"{EXPERIMENT}.signals[1]",
        "expected each metric once, found 'basket'",
    ),
    (
        "        - basket\n",
        "        - revenue #<\n",
        f"{EXPERIMENT}.signals[0]",
        "expected neither objective nor guardrail, found 'revenue', the objective",
    ),
    ("        - basket\n", "        - orders #<\n", f"{EXPERIMENT}.signals[0]", "found 'orders', a guardrail"),
    ("        - basket\n", "        - 7 #<\n", f"{EXPERIMENT}.signals[0]", "expected a name"),
]

RELEASES: list[Slip] = [
    (
        "traffic: 49%}",
        "traffic: 50%} #<",
        f"{EXPERIMENT}.stages[1].traffic",
        "expected less than 100% for all challengers together, found 100%: 50% for each of 2",
    ),
    ("{traffic: 49%}", "{traffic: 49%, name: watch}", f"{EXPERIMENT}.stages[1].name", "a name other than 'watch'"),
    (
        "traffic: 2%",
        "traffic: 0% #<",
        f"{EXPERIMENT}.holdback.traffic",
        "a percentage above 0% and below 100%, found '0%'",
    ),
    (
        "        traffic: 2%\n",
        "",
        f"{EXPERIMENT}.holdback.traffic",
        "expected this key, found none (Their share, such as 2%)",
    ),
    ("watch: 30d", "watch: 0s #<", f"{EXPERIMENT}.holdback.watch", "expected a duration from 1ms"),
    (
        "run_length: 1000",
        "run_length: 1 #<",
        f"{EXPERIMENT}.holdback.run_length",
        "expected a number of at least 2, found 1",
    ),
    ("run_length: 1000", "run_lenght: 9 #<", f"{EXPERIMENT}.holdback.run_lenght", "did you mean 'run_length'?"),
    ("cycle: 24h", "cycle: 24 #<", f"{EXPERIMENT}.decision.cycle", "say the unit, 24s or 24ms"),
    (
        "segment_harm: restrict",
        "segment_harm: hold #<",
        f"{EXPERIMENT}.decision.segment_harm",
        "'veto', 'restrict' or 'rol",
    ),
    (
        "    segments:\n      country:\n        from: header:x-country\n        values: [DE, FR]\n",
        "",
        f"{EXPERIMENT}.decision.segment_harm",
        "expected segments of the endpoint for segment_harm: restrict, found none",
    ),
    ("[0, 500]", "[500, 0] #<", f"{SHOP}.covariates.past-spend.bounds", "bounds from low to high, found [500, 0]"),
    ("[0, 500]", "[0, .inf] #<", f"{SHOP}.covariates.past-spend.bounds[1]", "expected a finite number"),
    (
        "past-spend:\n        from: header:X-Past-Spend\n        bounds: [0, 500]\n",
        "past-spend: #<\n        from: header:X-Past-Spend\n",
        f"{SHOP}.covariates.past-spend.bounds",
        "found none (The least and the greatest value",
    ),
    (
        "header:X-Past-Spend",
        "x-past-spend #<",
        f"{SHOP}.covariates.past-spend.from",
        "expected a request header such as",
    ),
    ("shadow: 12.5%", "shadow: 0% #<", f"{TRIAL}.shadow", "expected a percentage above 0% up to 100%, found '0%'"),
    ("shadow: 12.5%", "shadow: 0.1 #<", f"{TRIAL}.shadow", "expected a percentage"),
    (
        "protocol: oip",
        "protocol: http",
        f"{TRIAL}.shadow",
        "expected only with protocol: oip, found with protocol: http",
    ),
    (
        "protocol: oip",
        "protocol: openai",
        f"{TRIAL}.shadow",
        "expected only with protocol: oip, found with protocol: openai",
    ),
    (
        "label_independent: true",
        "label_independent: false",
        f"{TRIAL}.shadow",
        "objective of type score with label_independent: true, found with label_independent: false",
    ),
    (
        "      holdback:\n",
        "      shadow: 10% #<\n      holdback:\n",
        f"{EXPERIMENT}.shadow",
        "found with type unbounded",
    ),
    (
        "      holdback:\n",
        "      aa: true #<\n      holdback:\n",
        f"{EXPERIMENT}.aa",
        "for every variant, found another url for o",
    ),
    (
        "onnx: models/boosted.onnx",
        "url: http://x",
        f"{TRIAL}.aa",
        "the same model for every variant, found another onnx for b",
    ),
    ("aa: true", "aa: yes #<", f"{TRIAL}.aa", "expected true or false, found 'yes'"),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), COUNTS + AGGREGATES + RATIOS + PREDICTIONS + ROLES + RELEASES)
def test_a_slip_is_named_with_line_and_key(
    problems: Callable[[str], list[str]], rich: str, old: str, new: str, key: str, words: str
) -> None:
    assert old in rich
    if "bounds that do not begin" in words:
        rich = rich.replace("{metric: stars, margin: 0.5}", "{metric: stars, relative_margin: 5%}")
    text = rich.replace(old, new, 1)
    found = problems(text)
    place = f"{line_of(text, key)}: {key}: "
    assert [problem for problem in found if problem.startswith(place) and words in problem], (place, found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        bounds: [-60, 600]\n", ""),  # nothing is said about margins on a scale that is not known
        ("        cap: 5\n", ""),
        ("type: unbounded\n", "type: unbound\n"),
        ("role: champion\n        url", "role: challenger\n        url"),
        ("metric: loss\n", "metric: los\n"),
    ],
)
def test_one_wrong_part_does_not_spread(problems: Callable[[str], list[str]], rich: str, old: str, new: str) -> None:
    assert old in rich
    assert len(problems(rich.replace(old, new, 1))) == 1


def test_a_copy_of_the_champion_is_the_same_model(
    problems: Callable[[str], list[str]], accepted: Callable[[str], LoadedConfig], rich: str
) -> None:
    loaded = accepted(rich)
    (loaded.path.parent / "models/boosted.onnx").write_bytes(b"another")
    (problem,) = problems(rich)
    assert "experiment.aa: expected the same model for every variant, found another onnx for b than" in problem


def test_challengers_are_bounded(problems: Callable[[str], list[str]], rich: str) -> None:
    more = "".join(f"      n{number}: {{role: challenger, url: 'http://x:1'}}\n" for number in range(6))
    text = rich.replace("      third:\n", f"{more}      third:\n").replace("49%", "12%")
    assert MAX_CHALLENGERS == 8
    assert problems(text) == []
    (problem,) = problems(
        text.replace("      third:\n", "      n6: {role: challenger, url: 'http://x:1'}\n      third:\n")
    )
    assert f"{EXPERIMENT}: expected from one to 8 challengers, found 9 (n0, " in problem


def test_covariates_are_bounded(problems: Callable[[str], list[str]], rich: str) -> None:
    more = "".join(f"      c{number}: {{from: 'header:x', bounds: [0, 1]}}\n" for number in range(3))
    (problem,) = problems(rich.replace("      age:\n", f"{more}      age:\n"))
    assert "shop.covariates: expected at most 4 entries, found 5" in problem


def test_every_key_has_the_value_that_is_written(accepted: Callable[[str], LoadedConfig], rich: str) -> None:
    config = accepted(rich).config
    shop, flights = config.endpoints["shop"], config.endpoints["flights"]
    assert (shop.covariates["past-spend"].header, shop.covariates["past-spend"].bounds) == ("x-past-spend", (0, 500))
    assert (shop.metrics["revenue"].scale, shop.metrics["revenue"].aggregate) == ("winsorised", "sum")
    assert shop.metrics["basket"].numerator == "items"
    assert flights.metrics["loss"].prediction == Prediction("probability", 1)
    experiment, trial = shop.experiment, flights.experiment
    assert experiment is not None
    assert trial is not None
    errors, latency, stars, orders = experiment.guardrails
    assert (errors.margin, errors.relative_margin, errors.floor) == (None, Decimal("0.2"), 0.002)
    assert (latency.relative_margin, orders.relative_margin) == (Decimal("1.5"), Decimal("0.025"))
    assert (stars.margin, stars.relative_margin) == (0.5, None)
    assert experiment.signals == ("basket", "returned")
    assert experiment.holdback is not None
    assert (experiment.holdback.traffic, experiment.holdback.watch) == (Decimal("0.02"), 30 * 86400)
    assert (experiment.decision.cycle, experiment.decision.segment_harm) == (86400, "restrict")
    assert (trial.shadow, trial.aa) == (Decimal("0.125"), True)


def test_what_is_not_written_has_the_defaults(accepted: Callable[[str], LoadedConfig], rich: str) -> None:
    for line in ("scale: winsorised", "missing: zero", "loss: log_loss", "label_independent: true", "shadow: 12.5%"):
        rich = rich.replace(f"        {line}\n", "").replace(f"      {line}\n", "")
    for line in ("aggregate: sum", "require: min_effect", "watch: 30d", "run_length: 1000", "aa: true", "cycle: 24h"):
        rich = rich.replace(f"        {line}\n", "").replace(f"      {line}\n", "")
    rich = rich.replace("        prediction: probability[1]\n", "").replace("        segment_harm: restrict\n", "")
    shop, flights = (accepted(rich).config.endpoints[name] for name in ("shop", "flights"))
    chosen = {name: (metric.aggregate, metric.missing) for name, metric in {**shop.metrics, **flights.metrics}.items()}
    assert chosen == {
        "revenue": ("first", "zero"),
        "orders": ("sum", "zero"),
        "items": ("max", "exclude"),
        "basket": (None, "zero"),
        "stars": ("max", "exclude"),
        "returned": ("first", "zero"),
        "latency": (None, None),
        "errors": (None, None),
        "loss": (None, "exclude"),
        "minutes": (None, "exclude"),
    }
    assert (shop.metrics["revenue"].scale, shop.metrics["orders"].scale) == ("rank", None)
    loss, orders = flights.metrics["loss"], shop.metrics["orders"]
    assert (loss.loss, loss.label_independent, loss.prediction) == ("brier", False, None)
    assert (orders.loss, orders.label_independent, orders.max_missing) == (None, None, None)
    assert shop.timed(shop.metrics["basket"]).window == 12 * 3600
    experiment, trial = shop.experiment, flights.experiment
    assert experiment is not None
    assert trial is not None
    assert experiment.objective.require == "improvement"
    assert experiment.holdback is not None
    assert (experiment.holdback.watch, experiment.holdback.run_length) == (30 * 86400, 1_000_000)
    assert (experiment.decision.cycle, experiment.decision.segment_harm) == (0, "veto")
    assert (trial.shadow, trial.aa, trial.holdback, trial.signals) == (None, False, None, ())


def test_a_config_spelled_out_again_is_the_same(accepted: Callable[[str], LoadedConfig], rich: str) -> None:
    config = accepted(rich).config
    spelled = config.model_dump(mode="json", exclude_none=True)
    assert accepted(json.dumps(spelled)).config == config
    assert spelled["endpoints"]["flights"]["metrics"]["loss"]["prediction"] == "probability[1]"
    assert spelled["endpoints"]["shop"]["experiment"]["guardrails"][1]["relative_margin"] == "150%"


def test_null_is_what_is_not_written(accepted: Callable[[str], LoadedConfig], rich: str) -> None:
    nulls = {"aggregate: sum": "aggregate: null", "max_missing: 10%": "max_missing: null", "loss: log_loss": "loss: ~"}
    absent = rich
    for old, new in nulls.items():
        absent = absent.replace(f"        {old}\n", "")
        rich = rich.replace(old, new)
    assert accepted(rich).config == accepted(absent).config


@pytest.mark.parametrize(
    ("text", "prediction"),
    [
        ("probability", Prediction("probability", -1)),
        ("probability[0]", Prediction("probability", 0)),
        ("dense/Softmax:0[12]", Prediction("dense/Softmax:0", 12)),
        ("[3]", Prediction("", 3)),
    ],
)
def test_predictions(text: str, prediction: Prediction) -> None:
    assert parse_prediction(text) == prediction
    assert str(prediction) == text


@pytest.mark.parametrize("text", ["", "a b", "[-1]", "[]", "a[1", "a[1][2]", 3, None])
def test_no_predictions(text: object) -> None:
    with pytest.raises(ValueError, match="expected an output of the model"):
        parse_prediction(text)


def test_relative_margins_survive_their_spelling() -> None:
    for text in ("0.0001%", "2%", "2.5%", "1000%"):
        assert percent_text(parse_relative(text)) == text


def test_the_scale_of_log_loss_is_that_of_the_statistics() -> None:
    written = {"type": "score", "source": "outcome", "direction": "decrease", "loss": "log_loss", "window": "1h"}
    assert Metric.model_validate(written).span == LOG_LOSS_CAP


def test_the_json_schema_takes_what_the_gateway_takes(accepted: Callable[[str], LoadedConfig], rich: str) -> None:
    schema = json_schema()
    assert fits(read(rich.encode(), "").data, schema, schema)
    assert fits(accepted(rich).config.model_dump(mode="json", exclude_none=True), schema, schema)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("type: ratio", "type: quotient"),
        ("scale: winsorised", "scale: mean"),
        ("aggregate: sum", "aggregate: mean"),
        ("numerator: items", "numerator: Items"),
        ("cap: 5", "cap: none"),
        ("cap: 5", "cap: 0"),
        ("loss: log_loss", "loss: hinge"),
        ("label_independent: true", "label_independent: yes"),
        ("probability[1]", "probability[x]"),
        ("relative_margin: 20%", "relative_margin: 0.2"),
        ("floor: 0.002", "floor: -1"),
        ("margin: 0.5", "margin: 0"),
        ("require: min_effect", "require: all"),
        ("- basket", "- Basket"),
        ("traffic: 2%", "traffic: 0.02"),
        ("        traffic: 2%\n", ""),
        ("run_length: 1000", "run_length: 1"),
        ("cycle: 24h", "cycle: 24"),
        ("segment_harm: restrict", "segment_harm: hold"),
        ("shadow: 12.5%", "shadow: 0.1"),
        ("aa: true", "aa: 1"),
        ("header:X-Past-Spend", "x-past-spend"),
        ("        bounds: [0, 500]\n", ""),
    ],
)
def test_the_json_schema_refuses_what_the_gateway_refuses(
    problems: Callable[[str], list[str]], rich: str, old: str, new: str
) -> None:
    schema = json_schema()
    assert old in rich
    text = rich.replace(old, new, 1)
    assert problems(text)
    assert not fits(read(text.encode(), "").data, schema, schema)


def test_the_words_of_the_json_schema_are_one_line() -> None:
    text = json.dumps([part.get("description") for part in json_schema()["$defs"].values()])
    assert "\\n" not in text
    assert (
        "units of its score between 0 and 1"
        in json_schema()["$defs"]["Guardrail"]["properties"]["margin"]["description"]
    )


def test_no_warnings_without_need(accepted: Callable[[str], LoadedConfig], rich: str) -> None:
    assert warnings(accepted(rich)) == []


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        (
            "        cycle: 24h\n",
            "",
            f"{EXPERIMENT}.decision.cycle",
            "a novelty effect of the first day can promote: cycle:",
        ),
        ("cycle: 24h", "cycle: 0s #<", f"{EXPERIMENT}.decision.cycle", "cycle: 24h or 7d"),
        ("aa: true", "aa: false", f"{TRIAL}.decision.cycle", "a novelty effect of the first day can promote"),
        (
            "cycle: 24h",
            "cycle: 60d #<",
            f"{EXPERIMENT}.decision.cycle",
            "no whole cycle passes in time (60d, max_duration 60d): no promotion is possible",
        ),
        (
            ", floor: 0.002",
            "",
            f"{GUARDRAILS}[0].relative_margin",
            "never shown to be kept while the champion makes no err",
        ),
        ("margin: 0.5", "margin: 0.004", f"{GUARDRAILS}[2].margin", "0.004 is so small that millions of units"),
        ("window: 7d", "window: 60d #<", f"{METRICS}.returned.window", "no outcome is counted before max_duration"),
    ],
)
def test_what_is_seldom_meant_is_a_warning(
    accepted: Callable[[str], LoadedConfig], rich: str, old: str, new: str, key: str, words: str
) -> None:
    assert old in rich
    text = rich.replace(old, new, 1)
    loaded = accepted(text)
    (warning,) = warnings(loaded)
    assert str(warning).startswith(f"{loaded.path}:{line_of(text, key)}: {key}: ")
    assert words in warning.message


def test_no_cycle_is_needed_in_a_short_experiment(accepted: Callable[[str], LoadedConfig], rich: str) -> None:
    text = rich.replace("        cycle: 24h\n", "").replace("60d", "6d").replace("window: 7d", "window: 5d")
    assert warnings(accepted(text)) == []


def test_covariates_without_an_experiment_are_a_warning(accepted: Callable[[str], LoadedConfig], rich: str) -> None:
    shop = rich[: rich.index("  flights:")]
    fixed = shop[: shop.index("    experiment:")] + "    traffic: {third: 10%, old: 80%, new: 10%}\n"
    (warning,) = warnings(accepted(fixed))
    assert warning.key == f"{SHOP}.covariates"
    assert "without an experiment there is nothing" in warning.message


@pytest.mark.parametrize(
    ("more", "key"),
    [("", ""), ("model: other", "model"), ("headers: {x-tier: fast}", "headers")],
)
def test_another_model_at_the_same_provider_is_another_model(
    problems: Callable[[str], list[str]], rich: str, more: str, key: str
) -> None:
    text = rich.replace("onnx: models/logistic.onnx", "url: http://provider")
    text = text.replace("onnx: models/boosted.onnx", f"url: http://provider\n        {more}")
    said = f"experiment.aa: expected the same model for every variant, found another {key} for b than for a"
    assert [said in problem for problem in problems(text)] == ([True] if key else [])
