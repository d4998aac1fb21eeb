"""What a request's headers say before a variant is drawn: covariates are noted, kept segments decide."""

from __future__ import annotations

import pytest

from gateway.events import FORCED, Assignment, Completion, Shadow
from gateway.plan import HASH_SPACE, CovariatePlan, KeptPlan
from tests.integration.serving.local_worker import LocalWorker, challenger, champion, endpoint, infer_body, plan, until

pytestmark = pytest.mark.anyio
COVARIATES = (
    CovariatePlan(name="spent", header="x-spent", low=0.0, high=10.0),
    CovariatePlan(name="age", header="x-age", low=18.0, high=98.0),
)
STAYS = KeptPlan(segment="origin", value="JFK", variant="logistic")


async def test_covariates_are_noted_in_the_order_of_the_plan(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), covariates=COVARIATES)))
    for headers in ([("x-age", "30"), ("x-spent", "2.5")], [("x-age", "5")], [("x-spent", "nan"), ("x-age", "x")]):
        await worker.request(body=infer_body(), headers=headers)
    assert [fact.covariates for fact in worker.facts(Assignment)] == [(2.5, 30.0), (5.0, 18.0), (5.0, 58.0)]


async def test_covariates_do_not_move_the_coin(worker: LocalWorker) -> None:
    for covariates in ((), COVARIATES):
        await worker.publish(plan(endpoint(champion(), challenger(), share=0.5, covariates=covariates)))
        await worker.request(body=infer_body(), headers=[("x-user-id", "u"), ("x-spent", "3")])
    without, noted = worker.facts(Assignment)
    assert (without.covariates, noted.covariates) == ((), (3.0, 58.0))
    assert (without.variant, without.bucket, without.pi) == (noted.variant, noted.bucket, noted.pi)


async def test_a_kept_segment_stays_with_its_variant_and_has_no_vote(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), challenger(), share=0.5, kept=(STAYS,), shadow=HASH_SPACE)))
    user = worker.user_of("boosted")
    for origin in ("JFK", "EWR"):
        reply = await worker.request(body=infer_body(), headers=[("x-user-id", user), ("x-origin", origin)])
        assert reply.status == 200
    kept, drawn = worker.facts(Assignment)
    assert (kept.variant, kept.pi, kept.flags, kept.segments) == ("logistic", 1.0, FORCED, ("JFK",))
    assert (drawn.variant, drawn.pi, drawn.flags, drawn.segments) == ("boosted", 0.5, 0, ("EWR",))
    assert kept.bucket == drawn.bucket
    assert [fact.served for fact in worker.facts(Completion)] == ["logistic", "boosted"]
    await until(lambda: not worker.worker._shadows._copies)
    assert [(fact.decision, fact.variant) for fact in worker.facts(Shadow)] == [(drawn.decision, "logistic")]


async def test_the_kept_may_be_any_variant_and_what_is_not_listed_is_a_value_too(worker: LocalWorker) -> None:
    kept = (KeptPlan(segment="origin", value="other", variant="boosted"), STAYS)
    await worker.publish(plan(endpoint(champion("twin"), challenger(), challenger("logistic"), kept=kept)))
    for origin in ("nowhere", "JFK", "EWR"):
        await worker.request(body=infer_body(), headers=[("x-origin", origin)])
    await worker.request(body=infer_body())
    found = [(fact.variant, fact.flags) for fact in worker.facts(Assignment)]
    assert found == [("boosted", FORCED), ("logistic", FORCED), ("twin", 0), ("boosted", FORCED)]


async def test_a_kept_variant_that_fails_is_answered_for_like_any_other(worker: LocalWorker) -> None:
    kept = (KeptPlan(segment="origin", value="JFK", variant="crashing"),)
    await worker.publish(plan(endpoint(champion(), challenger("crashing"), kept=kept)))
    reply = await worker.request(body=infer_body(), headers=[("x-origin", "JFK")])
    assert reply.status == 200
    (completion,) = worker.facts(Completion)
    assert (completion.served, completion.error) == ("logistic", "failed")
