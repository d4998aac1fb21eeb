"""What an edit of the config means for what has already happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.assignment.ranges import owner
from gateway.errors import ConfigError
from gateway.evidence.definition import Definition
from gateway.plan import HASH_SPACE, KeptPlan
from gateway.release.artifacts import Artifacts
from gateway.release.compile import rules
from gateway.release.reconcile import Reconciled, reconcile
from gateway.release.stages import move
from gateway.release.state import Decision, ReleaseState, shares_of
from gateway.release.view import Rules
from tests.unit.release.configs import experiment, fixed, loaded

NOW = 1_700_000_000_000_000
MODELS = Path(__file__).parents[3] / "models" / "flight_delay"


@dataclass
class History:
    """Configs taken one after the other."""

    folder: Path
    states: dict[str, ReleaseState] = field(default_factory=dict)
    definitions: dict[str, Definition] = field(default_factory=dict)
    quarantine: dict[str, str] = field(default_factory=dict)

    def take(self, **endpoints: dict[str, Any]) -> Reconciled:
        config = loaded(self.folder, **endpoints)
        result = reconcile(
            "file",
            config.config,
            self.states,
            self.definitions,
            Artifacts(),
            lambda _, artifact: self.quarantine.get(artifact),
            NOW,
        )
        self.states |= result.states
        self.definitions |= {definition.id: definition for definition in result.starts}
        return result

    def refused(self, **endpoints: dict[str, Any]) -> str:
        with pytest.raises(ConfigError) as caught:
            self.take(**endpoints)
        return str(caught.value).removeprefix("file: endpoints.")

    def ends(self, **changes: Any) -> None:
        self.states["rank"] = replace(self.states["rank"], **changes)

    def promote(self, endpoint: dict[str, Any], **more: Any) -> None:
        decision = Decision(kind="promote", reason="", text="", **more)
        self.states["rank"] = move(self.rank, decision, self.rules(endpoint), "a", NOW)

    def rules(self, endpoint: dict[str, Any]) -> Rules:
        return rules(loaded(self.folder, rank=endpoint).config.endpoints["rank"])

    @property
    def rank(self) -> ReleaseState:
        return self.states["rank"]

    @property
    def split(self) -> dict[str, float]:
        return {name: round(share, 9) for name, share in shares_of(self.rank.slots).items()}


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


@pytest.fixture
def started(history: History) -> History:
    history.take(rank=experiment())
    return history


def edited(
    change: Callable[[dict[str, Any]], Any],
    id: str = "one",
    champion: str = "a",
    challenger: str = "b",
    rivals: tuple[str, ...] = (),
    **decision: Any,
) -> dict[str, Any]:
    endpoint = experiment(id, champion, challenger, *rivals, **decision)
    change(endpoint)
    return endpoint


def test_a_new_experiment_starts_in_its_first_stage(history: History) -> None:
    result = history.take(rank=experiment())
    assert [definition.id for definition in result.starts] == ["one"]
    assert result.withdrawn == []
    assert (history.rank.status, history.rank.stage, history.rank.hold) == ("running", "traffic-1%", "")
    assert history.rank.started_at_us == history.rank.stage_since_us == NOW
    assert history.split == {"a": 0.99, "b": 0.01}


def test_taking_the_same_config_again_changes_nothing(started: History) -> None:
    before = started.rank
    result = started.take(rank=experiment())
    assert result.starts == []
    assert result.withdrawn == []
    assert started.rank == before


def test_a_later_stage_may_be_edited(started: History) -> None:
    before = started.rank
    started.take(rank=edited(lambda e: e["experiment"]["stages"].__setitem__(1, {"traffic": "20%"})))
    assert started.rank == before


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["experiment"]["stages"][0].update(traffic="2%"),
        lambda e: e["experiment"]["stages"][0].update(name="renamed"),
        lambda e: e["experiment"]["stages"].pop(0),
    ],
    ids=["share", "name", "removed"],
)
def test_an_edit_of_the_present_stage_holds_until_somebody_resumes(
    started: History, change: Callable[[dict[str, Any]], Any]
) -> None:
    started.take(rank=edited(change))
    assert started.rank.hold.startswith("config changed: stage traffic-1% is not what it was; `resume`")
    assert started.split == {"a": 0.99, "b": 0.01}
    started.take(rank=experiment())
    assert started.rank.hold, "taking the edit back does not resume"


def test_a_hold_by_a_person_outlives_edits(started: History) -> None:
    started.ends(hold="wait")
    started.take(rank=edited(lambda e: e["experiment"]["stages"].pop(0)))
    assert started.rank.hold == "wait"


def test_automation_and_levels_may_be_edited(started: History) -> None:
    before = started.rank
    started.take(rank=edited(lambda e: e["experiment"].update(automation="off"), alpha=0.05))
    assert started.rank == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda e: e["metrics"]["score"].update(window="2m"), "metric score"),
        (lambda e: e["metrics"]["errors"].update(direction="decrease") or e["metrics"].pop("errors"), "metric errors"),
        (lambda e: e["experiment"]["objective"].update(min_effect=0.05), "min_effect"),
        (lambda e: e["experiment"]["guardrails"][0].update(margin=0.1), "metric errors"),
        (lambda e: e.update(segments={"origin": {"from": "header:x-o", "values": ["EWR"]}}), "segments"),
    ],
)
def test_what_the_statistics_froze_may_not_change(
    started: History, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    endpoint = edited(change)
    if "errors" not in endpoint["metrics"]:
        endpoint["experiment"]["guardrails"] = []
    before = started.rank
    message = started.refused(rank=endpoint)
    assert message.startswith("rank.experiment: one has begun, so ")
    assert named in message
    assert message.endswith("may not change: use a new id")
    assert started.rank == before


def test_a_timeout_and_an_address_may_change(started: History) -> None:
    before = started.rank
    started.take(rank=edited(lambda e: e["variants"]["b"].update(timeout="3s", url="http://127.0.0.1:9009")))
    assert started.rank == before


def test_another_model_at_the_same_upstream_is_another_variant(history: History) -> None:
    def asking(model: str) -> dict[str, Any]:
        endpoint = experiment() | {"protocol": "openai"}
        for variant, name in zip(endpoint["variants"].values(), ("large", model), strict=True):
            variant.update(url="http://127.0.0.1:9000", model=name)
        return endpoint

    history.take(rank=asking("small"))
    assert history.definitions["one"].digests == ("large", "small")
    assert "may not change: use a new id" in history.refused(rank=asking("smaller"))


def test_a_changed_model_file_is_another_variant(history: History) -> None:
    models = [history.folder / name for name in ("logistic.onnx", "boosted.onnx")]
    for model in models:
        model.write_bytes((MODELS / model.name).read_bytes())
    endpoint = experiment() | {"protocol": "oip"}
    for variant, model in zip(endpoint["variants"].values(), models, strict=True):
        variant["onnx"] = str(model)
        del variant["url"]
    history.take(rank=endpoint)
    assert len(set(history.definitions["one"].digests) - {""}) == 2
    models[1].write_bytes((MODELS / "twin.onnx").read_bytes())
    assert history.refused(rank=endpoint) == (
        "rank.experiment: one has begun, so the challenger's model may not change: use a new id"
    )
    history.ends(status="rolled_back")
    history.take(rank=endpoint)


def test_a_used_id_is_refused(started: History) -> None:
    used = "rank.experiment.id: one has been used; a re-run needs a new id"
    started.take(rank=experiment("two"))
    assert started.refused(rank=experiment("one")) == used
    assert started.refused(rank=experiment("two"), other=experiment("one")).startswith("other.experiment.id: one has")


def test_an_experiment_that_was_taken_out_does_not_come_back(started: History) -> None:
    result = started.take(rank=fixed(a="80%", b="20%"))
    assert [state.experiment for state in result.withdrawn] == ["one"]
    assert started.rank.status == "fixed"
    assert started.split == {"a": 0.8, "b": 0.2}
    assert started.refused(rank=experiment()) == "rank.experiment.id: one has been used; a re-run needs a new id"
    started.take(rank=experiment("two"))
    assert started.split == {"a": 0.99, "b": 0.01}


def test_a_new_id_in_mid_run_withdraws_the_old_experiment(started: History) -> None:
    result = started.take(rank=experiment("two"))
    assert [state.experiment for state in result.withdrawn] == ["one"]
    assert (started.rank.experiment, started.rank.stage) == ("two", "traffic-1%")


def test_an_ended_experiment_is_not_withdrawn(started: History) -> None:
    started.ends(status="rolled_back")
    assert started.take(rank=experiment("two")).withdrawn == []


def test_the_champion_must_stay_in_the_file(started: History) -> None:
    message = "rank.variants: a is the champion now and must stay in the file"
    assert started.refused(rank=experiment("two", champion="c")) == message
    assert started.refused(rank=fixed(b="100%")) == message
    assert started.refused(rank=experiment(challenger="c")) == "rank.variants: one has begun with a and b"


@pytest.fixture
def promoted(started: History) -> History:
    started.promote(experiment())
    return started


def test_after_a_promotion_the_same_file_goes_on(promoted: History) -> None:
    promoted.take(rank=experiment())
    assert (promoted.rank.status, promoted.rank.champion, promoted.split) == ("promoted", "b", {"b": 1.0})


def test_after_a_promotion_the_roles_in_the_file_may_follow(promoted: History) -> None:
    promoted.take(rank=experiment(champion="b", challenger="a"))
    assert promoted.rank.status == "promoted"


def test_after_a_promotion_a_new_experiment_must_name_the_champion(promoted: History) -> None:
    assert promoted.refused(rank=experiment("two")) == (
        "rank.variants.b.role: b was promoted and is the champion now: the file must say so"
        " (to go back, roll back first)"
    )
    promoted.take(rank=experiment("two", champion="b", challenger="a"))
    assert promoted.split == {"b": 0.99, "a": 0.01}


def test_dropping_the_experiment_does_not_undo_a_promotion(promoted: History) -> None:
    assert "b was promoted and is the champion now" in promoted.refused(rank=fixed(a="100%", b="0%"))
    promoted.take(rank=fixed(b="100%", a="0%"))
    assert promoted.split == {"b": 1.0}
    promoted.take(rank=fixed(a="100%", b="0%"))
    assert promoted.split == {"a": 1.0}, "once the file owns the split, it may say anything"


def test_after_a_rollback_a_person_may_still_make_the_challenger_champion(started: History) -> None:
    started.ends(status="rolled_back")
    assert "a is the champion now" in started.refused(rank=experiment("two", champion="b", challenger="a"))
    started.take(rank=fixed(b="100%", a="0%"))
    assert started.split == {"b": 1.0}


def test_a_quarantined_artifact_starts_held(history: History) -> None:
    history.quarantine["http://127.0.0.1:9001"] = "zero"
    result = history.take(rank=experiment())
    assert len(result.starts) == 1
    assert history.rank.hold == "quarantined: experiment zero rolled this artifact back; `resume` tries it again"
    assert history.split == {"a": 1.0}
    history.take(rank=experiment())
    assert history.rank.hold
    resumed = move(history.rank, Decision(kind="resume", reason="", text=""), history.rules(experiment()), "a", NOW)
    assert (resumed.stage, resumed.stage_share) == ("traffic-1%", Decimal("0.01"))


def test_a_fixed_split_moves_the_band_and_nobody_else(history: History) -> None:
    points = range(0, HASH_SPACE, HASH_SPACE // 2003)
    owners = []
    for share in ("10%", "20%", "10%"):
        history.take(rank=fixed(a=f"{100 - int(share[:-1])}%", b=share))
        owners.append([owner(history.rank.slots, point) for point in points])
    assert owners[0] == owners[2]
    moved = [pair for pair in zip(owners[0], owners[1], strict=True) if pair[0] != pair[1]]
    assert set(moved) == {("a", "b")}
    assert 0.08 < len(moved) / 2003 < 0.12


def test_a_fixed_split_may_replace_its_champion(history: History) -> None:
    history.take(rank=fixed(a="80%", b="20%"))
    history.take(rank=fixed(c="80%", b="20%"))
    assert history.split == {"c": 0.8, "b": 0.2}
    history.take(rank=experiment(champion="d", challenger="b"))
    assert history.split == {"d": 0.99, "b": 0.01}


def test_endpoints_come_go_and_return(started: History) -> None:
    before = started.rank
    started.take(other=fixed(x="100%"))
    assert started.rank == before
    result = started.take(rank=experiment(), other=fixed(x="100%"))
    assert started.rank == before
    assert result.starts == []


@pytest.fixture
def several(history: History) -> History:
    history.take(rank=experiment("one", "a", "b", "c"))
    return history


def test_each_of_several_challengers_has_the_share_of_the_stage(several: History) -> None:
    assert several.split == {"a": 0.98, "b": 0.01, "c": 0.01}
    assert (several.rank.challenger, several.rank.challengers) == ("b", ("b", "c"))


def test_challengers_may_stand_in_any_order_in_the_file(several: History) -> None:
    before = several.rank
    several.take(rank=experiment("one", "a", "c", "b"))
    assert several.rank == before


def test_no_challenger_may_come_or_go_in_mid_run(several: History) -> None:
    message = "rank.variants: one has begun with a and b and c"
    assert several.refused(rank=experiment("one", "a", "b")) == message
    assert several.refused(rank=experiment("one", "a", "b", "c", "d")) == message


def test_who_was_dropped_stays_dropped_whatever_is_edited(several: History) -> None:
    rules = several.rules(experiment("one", "a", "b", "c"))
    drop = Decision(kind="drop", reason="", text="", variant="b")
    several.states["rank"] = move(several.rank, drop, rules, "a", NOW)
    several.take(rank=edited(lambda e: e["experiment"]["stages"].pop(), challenger="b", rivals=("c",)))
    assert several.split == {"a": 0.99, "c": 0.01}


def test_one_quarantined_artifact_of_several_holds_all(history: History) -> None:
    history.quarantine["http://127.0.0.1:9002"] = "zero"
    history.take(rank=experiment("one", "a", "b", "c"))
    assert history.rank.hold == "quarantined: experiment zero rolled the artifact of c back; `resume` tries it again"
    assert history.split == {"a": 1.0}


def test_model_files_of_several_are_told_apart(history: History) -> None:
    names = ("logistic.onnx", "boosted.onnx", "twin.onnx")
    for name in names:
        (history.folder / name).write_bytes((MODELS / name).read_bytes())
    endpoint = experiment("one", "a", "b", "c") | {"protocol": "oip"}
    for variant, name in zip(endpoint["variants"].values(), names, strict=True):
        variant["onnx"] = str(history.folder / name)
        del variant["url"]
    history.take(rank=endpoint)
    (history.folder / "twin.onnx").write_bytes((MODELS / "boosted.onnx").read_bytes())
    assert "so the model of c may not change" in history.refused(rank=endpoint)
    (history.folder / "logistic.onnx").write_bytes((MODELS / "boosted.onnx").read_bytes())
    assert "so the champion's model, the model of c may" in history.refused(rank=endpoint)


def watched_experiment(**named: Any) -> dict[str, Any]:
    return edited(lambda e: e["experiment"].update(holdback={"traffic": "2%", "watch": "1h"}), **named)


@pytest.fixture
def watched(history: History) -> History:
    history.take(rank=watched_experiment())
    history.promote(watched_experiment())
    return history


def test_a_watch_goes_on_under_the_same_file(watched: History) -> None:
    before = watched.rank
    assert watched.split == {"a": 0.02, "b": 0.98}
    assert watched.take(rank=watched_experiment()).withdrawn == []
    watched.take(rank=watched_experiment(champion="b", challenger="a"))
    watched.take(rank=edited(lambda e: e["experiment"].update(holdback={"traffic": "5%", "watch": "2h"})))
    assert watched.rank == before


def test_the_holdback_is_frozen(watched: History) -> None:
    assert "so holdback may not change" in watched.refused(rank=experiment())


def test_taking_a_watched_experiment_out_ends_it_in_the_open(watched: History) -> None:
    result = watched.take(rank=fixed(b="100%", a="0%"))
    assert [state.experiment for state in result.withdrawn] == ["one"]
    assert watched.split == {"b": 1.0}


def test_kept_segments_end_with_their_experiment(started: History) -> None:
    started.promote(experiment(), kept=(KeptPlan(segment="origin", value="EWR", variant="a"),))
    assert started.take(rank=experiment()).withdrawn == []
    assert started.rank.kept
    assert [state.experiment for state in started.take(rank=fixed(b="100%", a="0%")).withdrawn] == ["one"]
    assert not started.rank.kept
