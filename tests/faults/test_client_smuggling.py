"""Cases C8, C9 and C19: bytes in which two readers could find different requests.

Behind each vector stands a second request. Whatever becomes of the first, the upstream must never see the second one
as anything but what the gateway itself has read, judged and kept.
"""

from __future__ import annotations

import pytest

from tests.faults.gateway import Gateway, get, plain, post, recording, settled
from tests.integration.backends.upstream import Upstream

pytestmark = pytest.mark.anyio
HIDDEN = b"GET /plain/hidden HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def framed(*lines: str, body: bytes = b"hello", version: str = "1.1") -> bytes:
    return "\r\n".join([f"POST /plain/x HTTP/{version}", "host: x", *lines, "", ""]).encode("latin-1") + body


def length(value: str, *more: str) -> bytes:
    return framed(f"content-length: {value}", *more)


def coding(value: str, *more: str, body: bytes = CHUNKS, version: str = "1.1") -> bytes:
    return framed(f"transfer-encoding: {value}", *more, body=body, version=version)


def chunked(body: bytes) -> bytes:
    return coding("chunked", body=body)


FRAMING = {
    # two framings
    "CL.TE": framed("content-length: 15", "transfer-encoding: chunked", body=CHUNKS),
    "TE.CL": framed("transfer-encoding: chunked", "content-length: 15", body=CHUNKS),
    "CL.TE, short": framed("content-length: 4", "transfer-encoding: chunked", body=b"0\r\n\r\n"),
    "TE.CL, long": framed("transfer-encoding: chunked", "content-length: 60", body=b"0\r\n\r\n"),
    "CL.TE, capital": framed("content-length: 5", "Transfer-Encoding: Chunked", body=CHUNKS),
    "CL.TE, a request inside": framed(
        f"content-length: {len(HIDDEN) + 5}", "transfer-encoding: chunked", body=b"0\r\n\r\n"
    ),
    "CL.TE, a byte inside": framed("content-length: 6", "transfer-encoding: chunked", body=b"0\r\n\r\nX"),
    "CL and no coding": framed("content-length: 5", "transfer-encoding: identity"),
    "CL and an empty coding": framed("content-length: 5", "transfer-encoding: "),
    "CL and an unknown coding": framed("content-length: 5", "transfer-encoding: xchunked"),
    "CL and a coding that ends in a blank": framed("content-length: 5", "transfer-encoding: chunked ", body=CHUNKS),
    "CL and a coding behind a tab": framed("content-length: 5", "transfer-encoding:\tchunked", body=CHUNKS),
    "CL and a folded coding": framed("content-length: 5", "transfer-encoding:", " chunked", body=CHUNKS),
    "CL and a blank before the colon": framed("content-length: 5", "transfer-encoding : chunked", body=CHUNKS),
    # lengths
    "two lengths": length("5", "content-length: 10"),
    "two lengths, apart": length("5", "a: b", "content-length: 44"),
    "two lengths, the same": length("5", "content-length: 5"),
    "a list of lengths": length("5, 10"),
    "a list of the same": length("5, 5"),
    "a list with a hole": length("5,"),
    "plus": length("+5"),
    "minus": length("-5"),
    "minus nothing": length("-0"),
    "hexadecimal": length("0x5"),
    "octal": length("0o5"),
    "an underscore": length("1_0"),
    "a blank inside": length("1 0"),
    "a fraction": length("5.0"),
    "an exponent": length("5e0"),
    "no number": length("five"),
    "a letter behind": length("5x"),
    "empty": length(""),
    "beyond 64 bits": length("18446744073709551621"),
    "far beyond": length("9" * 400),
    "other digits": length("\xb2\xb3"),
    "a vertical tab": length("\x0b5"),
    "NUL": length("5\x00"),
    "a blank before the colon": framed("content-length : 5"),
    "a folded length": framed("content-length:", " 5"),
    "another host in the target": length("5").replace(b"/", b"http://other/", 1),
    "a field before the first": b"POST /plain/x HTTP/1.1\r\n content-length: 5\r\nhost: x\r\n\r\nhello",
    # codings
    "xchunked": coding("xchunked"),
    "chunked and something behind": coding("chunked, gzip"),
    "gzip": coding("gzip, chunked"),
    "identity": coding("identity"),
    "chunked twice": coding("chunked, chunked"),
    "two fields": coding("chunked", "transfer-encoding: chunked"),
    "two fields, one of them nothing": coding("chunked", "transfer-encoding: identity"),
    "a comma behind": coding("chunked,"),
    "a comma before": coding(", chunked"),
    "a parameter": coding("chunked;a=b"),
    "quotes": coding('"chunked"'),
    "an empty coding": coding(""),
    "NUL behind": coding("chunked\x00"),
    "a vertical tab before": coding("\x0bchunked"),
    "a form feed before": coding("\x0cchunked"),
    "a bare CR before": coding("\rchunked"),
    "a blank in the name": framed("transfer-encoding : chunked", body=CHUNKS),
    "a bare LF before it": framed("a: b\ntransfer-encoding: chunked", "content-length: 5"),
    "in HTTP/1.0": coding("chunked", version="1.0"),
    "in HTTP/1.0, with a length": coding("chunked", "content-length: 15", version="1.0"),
    # lines
    "a bare CR in a value": framed("a: b\rc", "content-length: 5"),
    "a bare CR before a length": framed("a: b\rcontent-length: 5"),
    "bare LFs": b"POST /plain/x HTTP/1.1\nhost: x\ncontent-length: 5\n\nhello",
    "a bare LF at the end": b"POST /plain/x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\nhello",
    "a line without a colon": framed("content-length", "content-length: 5"),
    "a name of nothing": framed(": 5", "content-length: 5"),
    "NUL in a name": framed("a\x00b: c", "content-length: 5"),
    "NUL in a value": framed("a: b\x00c", "content-length: 5"),
    "a blank in a name": framed("a b: c", "content-length: 5"),
    "folding": framed("a: b", " c", "content-length: 5"),
    "a tab in the request line": b"POST\t/plain/x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
    "a blank in the target": b"POST /plain/x y HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
    "a fragment": b"POST /plain/x#y HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
    "a CR in the request line": b"POST /plain/x\rHTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("case", FRAMING)
async def test_c8_framing_that_is_in_doubt_is_refused(gateway: Gateway, case: str) -> None:
    await refused(gateway, FRAMING[case], {400, 501})


BODIES = {
    "a negative size": chunked(b"-1\r\nhello\r\n0\r\n\r\n"),
    "a sign": chunked(b"+5\r\nhello\r\n0\r\n\r\n"),
    "hexadecimal": chunked(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "an underscore": chunked(b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    "no number": chunked(b"xyz\r\nhello\r\n0\r\n\r\n"),
    "no size": chunked(b"\r\nhello\r\n0\r\n\r\n"),
    "beyond 64 bits": chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "64 bits": chunked(b"ffffffffffffffff0\r\nhello\r\n0\r\n\r\n"),
    "a blank before": chunked(b" 5\r\nhello\r\n0\r\n\r\n"),
    "a blank behind": chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
    "a blank and an extension": chunked(b"5 ;a\r\nhello\r\n0\r\n\r\n"),
    "more than it says": chunked(b"5\r\nhello!!\r\n0\r\n\r\n"),
    "less than it says": chunked(b"8\r\nhello\r\n0\r\n\r\n" + HIDDEN),
    "no end of a chunk": chunked(b"5\r\nhello0\r\n\r\n"),
    "a bare LF behind a chunk": chunked(b"5\r\nhello\n0\r\n\r\n"),
    "a bare CR behind a chunk": chunked(b"5\r\nhello\r0\r\n\r\n"),
    "a bare LF behind a size": chunked(b"5\nhello\r\n0\r\n\r\n"),
    "a bare CR behind a size": chunked(b"5\rhello\r\n0\r\n\r\n"),
    "a bare LF at the end": chunked(b"5\r\nhello\r\n0\r\n\n"),
    "a bare CR at the end": chunked(b"5\r\nhello\r\n0\r\n\rX"),
    "two CRs": chunked(b"5\r\r\nhello\r\n0\r\n\r\n"),
    "an extension of nothing": chunked(b"5;\r\nhello\r\n0\r\n\r\n"),
    "NUL in an extension": chunked(b"5;a\x00b\r\nhello\r\n0\r\n\r\n"),
    "a bare LF in an extension": chunked(b"5;a\nhello\r\n0\r\n\r\n"),
    "a bare CR in an extension": chunked(b"5;a\rX\r\nhello\r\n0\r\n\r\n"),
    "an extension that is none": chunked(b"5;a[=b\r\nhello\r\n0\r\n\r\n"),
    "a trailer that is none": chunked(b"5\r\nhello\r\n0\r\nno field\r\n\r\n"),
    "a folded trailer": chunked(b"5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n"),
    "NUL in a trailer": chunked(b"5\r\nhello\r\n0\r\na: b\x00\r\n\r\n"),
    "a length as a trailer": chunked(b"5\r\nhello\r\n0\r\ncontent-length: 500\r\n\r\n"),
    "nothing but an extension": chunked(b";a\r\nhello\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("case", BODIES)
async def test_c9_a_body_that_is_in_doubt_is_refused(gateway: Gateway, case: str) -> None:
    await refused(gateway, BODIES[case], {400})


async def refused(gateway: Gateway, data: bytes, statuses: set[int]) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(data + HIDDEN)
        heard = await client.answer()
        reason = {400: "bad_request", 501: "not_supported", 431: "head_too_large"}[heard.status]
        gateway.refused(heard, heard.status, reason)
        assert heard.status in statuses
        assert heard.headers["connection"] == "close"
        assert await client.closed()
        assert upstream.requests == []


SOUND = {
    "leading zeros": (length("005"), b"hello"),
    "blanks around a length": (framed("content-length:   5  "), b"hello"),
    "a coding in capitals": (coding("CHUNKED"), b"hello"),
    "chunks in capitals": (chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    "zeros before a size": (chunked(b"0005\r\nhello\r\n000\r\n\r\n"), b"hello"),
    "an extension": (chunked(b'5;a=b;c="d"\r\nhello\r\n0\r\n\r\n'), b"hello"),
    "trailers": (
        chunked(b"5\r\nhello\r\n0\r\nhost: hidden\r\nauthorization: hidden\r\nx-user-id: hidden\r\n\r\n"),
        b"hello",
    ),
    "a HEAD with a body": (b"HEAD" + length("5")[4:], b"hello"),
    "an OPTIONS with a body": (b"OPTIONS" + length("5")[4:], b"hello"),
    "an expectation with its body": (length("5", "expect: 100-continue"), b"hello"),
    "a host in the target": (length("5").replace(b"/", b"http://X:80/", 1), b"hello"),
    "two blanks in the request line": (length("5").replace(b" ", b"  ", 1), b"hello"),
    "a twin of the coding": (framed("transfer_encoding: chunked", "content-length: 5"), b"hello"),
    "lines before the first": (b"\r\n\r\n" + length("5"), b"hello"),
    "a GET with a body": (get("/plain/x", f"content-length: {len(HIDDEN)}") + HIDDEN, HIDDEN),
}


@pytest.mark.parametrize("case", SOUND)
async def test_c8_what_can_be_read_in_one_way_is_passed_on_with_one_framing(gateway: Gateway, case: str) -> None:
    data, body = SOUND[case]
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(data)
        assert (await client.answer(head_only=data.startswith(b"HEAD"))).status == 200
        (received,) = upstream.requests
        assert received.body == body
        assert b"hidden" not in received.raw.removesuffix(HIDDEN)
        framing = [field for field in received.headers if field[0] in (b"content-length", b"transfer-encoding")]
        assert framing == [(b"content-length", str(len(body)).encode())]
        assert b"transfer_encoding" not in received.raw
        await client.send(HIDDEN)  # the next request is the next one
        assert (await client.answer()).status == 200
        assert len(await gateway.exposures(2)) == 2


async def test_c8_what_comes_behind_a_body_is_the_beginning_of_the_next_request(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(framed("content-length: 0", body=b"X") + HIDDEN)
        assert [(await client.answer()).status for _ in range(2)] == [200, 400]
        assert await client.closed()
        assert [received.line.split()[1] for received in upstream.requests] == [b"/x"]
        assert len(await gateway.exposures(1)) == 1


async def test_c19_pipelined_requests_are_answered_in_order_up_to_the_bad_one(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get("/plain/1") + post(b"two", "/plain/2") + length("+5") + get("/plain/4"))
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
        assert await client.closed()
        assert [received.line.split()[1] for received in upstream.requests] == [b"/1", b"/2"]
        assert gateway.rejected("bad_request") == 1
        assert [kept.completed.end for kept in await gateway.exposures(2)] == ["answered", "answered"]


async def test_c19_what_comes_behind_the_last_request_is_not_read(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get("/plain/1", "connection: close") + HIDDEN)
        assert (await client.answer()).status == 200
        assert await client.closed()
        await settled(lambda: gateway.counted("a") == (1, 0))
        assert len(upstream.requests) == 1
