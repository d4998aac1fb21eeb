"""The provider's own client, unchanged, against a real node with two model names at one provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.integration.process.conftest import HEAD
from tests.integration.process.node import Node, running, wait_for
from tests.integration.process.provider import USAGE, WORDS, Provider, events, provider

pytestmark = pytest.mark.process
SAYING = "".join(WORDS)


@pytest.fixture
def upstream() -> Iterator[Provider]:
    with provider() as known:
        yield known


@pytest.fixture(params=[False, True], ids=["as it is", "masked"])
def masked(request: pytest.FixtureRequest) -> bool:
    masks: bool = request.param
    return masks


@pytest.fixture
def node(tmp_path: Path, upstream: Provider, masked: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setenv("PROVIDER_KEY", "sk-secret")
    variants = "".join(
        f"""\
      {name}:
        role: {role}
        url: {upstream.url}
        model: {model}
        headers: {{authorization: "Bearer ${{PROVIDER_KEY}}"}}
"""
        for name, role, model in (("small", "champion", "gpt-small"), ("large", "challenger", "gpt-large"))
    )
    config = tmp_path / "gateway.yaml"
    config.write_text(
        HEAD
        + f"""\
  chat:
    protocol: openai
    mask_model: {str(masked).lower()}
    unit: {{from: "header:x-user-id", otherwise: request}}
    variants:
{variants}    traffic: {{small: 50%, large: 50%}}
"""
    )
    with running(config, workers=2) as running_node:
        yield running_node


@pytest.fixture
def client(node: Node) -> Iterator[openai.OpenAI]:
    with (
        httpx.Client(trust_env=False) as transport,
        openai.OpenAI(
            base_url=node.url("data", "/v1"), api_key="sk-mine", http_client=transport, max_retries=0
        ) as known,
    ):
        yield known


def _named(masked: bool) -> set[str]:
    return {"chat"} if masked else {"gpt-small", "gpt-large"}


def test_chat_completions_embeddings_and_models(client: openai.OpenAI, upstream: Provider, masked: bool) -> None:
    named = set()
    for user in range(12):
        answer = client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "hi"}], extra_headers={"x-user-id": str(user)}
        )
        assert answer.choices[0].message.content == SAYING
        assert answer.usage is not None
        assert answer.usage.model_dump(exclude_unset=True) == USAGE
        named.add(answer.model)
    assert named == _named(masked)
    assert {asked["model"] for asked in upstream.asked} == {"gpt-small", "gpt-large"}
    assert {headers["authorization"] for headers in upstream.headers} == {"Bearer sk-secret"}
    assert client.completions.create(model="chat", prompt="hi").choices[0].text == SAYING
    assert client.embeddings.create(model="chat", input="hi", encoding_format="float").data[0].embedding == [0.25, 0.5]
    assert [model.id for model in client.models.list()] == ["chat"]
    assert client.models.retrieve("chat").id == "chat"


def test_a_stream_arrives_event_by_event_and_byte_by_byte(
    client: openai.OpenAI, node: Node, upstream: Provider, masked: bool
) -> None:
    upstream.patience.clear()
    with client.chat.completions.create(
        model="chat",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        first = next(stream)
        upstream.patience.set()  # only now does the provider go on: the first event was not held back
        chunks = [first, *stream]
    words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(words) == SAYING
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6
    assert {chunk.model for chunk in chunks} <= _named(masked)

    body = {"model": "chat", "stream": True, "messages": []}
    answer = node.client.post(node.url("data", "/v1/chat/completions"), json=body, headers={"x-user-id": "1"})
    model = upstream.asked[-1]["model"]
    assert answer.content == b"".join(events("chat" if masked else model, usage=False))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-gateway-decision"]


def test_a_request_arrives_as_it_was_sent_but_for_the_name(node: Node, upstream: Provider) -> None:
    sent = (
        b'{ "messages":[{"role":"user","content":"\\u00fc \\"model\\": \\"x\\""}] ,"model" : "chat","seed":1e2, "n":1 }'
    )
    answer = node.client.post(
        node.url("data", "/v1/chat/completions"), content=sent, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200
    name = json.dumps(upstream.asked[-1]["model"]).encode()
    assert upstream.bodies[-1] == sent.replace(b'"chat"', name)


def test_errors_have_the_form_that_the_client_reads(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=[])
    assert (missing.value.code, missing.value.type) == ("model_not_found", "invalid_request_error")
    assert missing.value.request_id
    with pytest.raises(openai.RateLimitError) as slow:
        client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "limit"}])
    assert (slow.value.code, slow.value.response.headers["retry-after"]) == ("rate_limited", "7")
    with pytest.raises(openai.BadRequestError):
        client.post("/chat/completions", cast_to=object, body={"messages": []})


def test_who_hangs_up_stops_the_provider_and_is_no_error(client: openai.OpenAI, node: Node, upstream: Provider) -> None:
    upstream.patience.clear()
    stream = client.chat.completions.create(model="chat", messages=[], stream=True)
    next(stream)
    stream.close()
    wait_for(lambda: node.total('gateway_responses_total{code="499"') == 1, "the hang-up is counted", 5.0)
    upstream.patience.set()
    assert upstream.hung_up.wait(5.0)
    assert node.total("gateway_attempt_errors_total") == 0


def test_the_asynchronous_client(node: Node) -> None:
    async def ask() -> str:
        async with (
            httpx.AsyncClient(trust_env=False) as transport,
            openai.AsyncOpenAI(
                base_url=node.url("data", "/v1"), api_key="sk-mine", http_client=transport, max_retries=0
            ) as client,
        ):
            stream = await client.chat.completions.create(model="chat", messages=[], stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert asyncio.run(ask()) == SAYING
