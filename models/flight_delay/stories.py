"""What each model is for and what is wrong with it: the part of a card that cannot be measured."""

from __future__ import annotations

from .card import Story
from .fit import (
    BOOSTED_INPUTS,
    BOOSTED_ROUNDS,
    BOOSTED_SETTINGS,
    DISTANCE_BAND_MILES,
    DISTANCE_BANDS,
    LINEAR,
    LOGISTIC_SETTINGS,
    ONE_HOT,
    TWIN_SEED,
)

_LOGISTIC = {
    "model": "logistic regression, ridge penalty (scikit-learn)",
    **LOGISTIC_SETTINGS,
    "standardised numbers": ", ".join(LINEAR),
    "one-hot": ", ".join(ONE_HOT),
}
_BOOSTED = {
    "model": "gradient-boosted trees (LightGBM)",
    "trees": BOOSTED_ROUNDS,
    **BOOSTED_SETTINGS,
    "inputs": ", ".join(BOOSTED_INPUTS),
}
_EXTRAPOLATION = (
    "The month enters as a number. From January to June the share of late flights rises, unevenly, from "
    "24% to 32%; the model carries that line on through an autumn in which the share falls to 14%. In the "
    "second half of the year it does worse than a constant, although it ranks flights better than chance. "
    "Without the month the same recipe has a Brier score of 0.172 there. The trend is kept: a champion that "
    "was reasonable when it was trained and has gone stale since is the ordinary reason to test a challenger."
)
_OBSERVED_WEATHER = (
    "The weather is the observation of the departure hour. Before departure a forecast would have to stand "
    "in for it, and would be worse."
)

STORIES = {
    "logistic": Story(
        title="logistic: the champion",
        summary="The chance of a late arrival from the schedule alone: what an airline knows when it sells the ticket.",
        settings=_LOGISTIC,
        intended_use="The incumbent of an experiment; every challenger is measured against it.",
        limits=[_EXTRAPOLATION],
    ),
    "boosted": Story(
        title="boosted: the challenger that deserves to win",
        summary="The chance of a late arrival from the schedule and the weather of the departure hour.",
        settings=_BOOSTED,
        intended_use="The challenger of an experiment that should end in a promotion.",
        limits=[
            "It leaves the month out: a tree would treat every month after June as June.",
            "It still expects more late flights than the second half of the year has, having learnt the rate "
            "of the first half.",
            _OBSERVED_WEATHER,
        ],
    ),
    "broken": Story(
        title="broken: the challenger with a feature-order bug",
        summary="The trees of `boosted`, given the pressure for the scheduled hour and the hour for the "
        "pressure. It answers promptly, with probabilities between 0 and 1, and is wrong.",
        settings={**_BOOSTED, "bug": "hour and pressure trade places in front of the trees"},
        intended_use="The challenger of an experiment that should end in a rollback on quality.",
        limits=["Not for any use where the answer matters."],
    ),
    "twin": Story(
        title="twin: the challenger that changes nothing",
        summary="The champion's recipe on a bootstrap sample of the champion's data.",
        settings={**_LOGISTIC, "bootstrap seed": TWIN_SEED},
        intended_use="The challenger of an A/A experiment, which should find nothing to act on.",
        limits=[
            _EXTRAPOLATION,
            "With other bootstrap seeds its distance from the champion on the replay has a standard "
            "deviation of about 0.001 Brier.",
        ],
    ),
    "crashing": Story(
        title="crashing: the challenger that raises",
        summary=f"The champion plus an offset for each of {DISTANCE_BANDS} distance bands of "
        f"{DISTANCE_BAND_MILES} miles, looked up with the distance itself: the division was lost on the way "
        "into the graph. It loads, and it answers a warm-up of zeros.",
        settings={**_LOGISTIC, "bug": "the row of the offset table is the distance in miles"},
        intended_use="The challenger of an experiment that should end in a rollback on errors.",
        limits=["Not for any use where an answer is wanted."],
    ),
}
