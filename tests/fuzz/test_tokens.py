"""A token is what the signer made, to the last character; everything else is rejected, and nothing else is raised."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.assignment.token import Signer, Token, pack_names
from gateway.errors import TokenRejected
from gateway.plan import SigningKey
from tests.fuzz.mutations import edited
from tests.fuzz.profile import FUZZ

OLD, NEW = SigningKey(id=1, secret="11" * 32), SigningKey(id=2, secret="22" * 32)
STRANGER = SigningKey(id=1, secret="33" * 32)
SIGNER = Signer([NEW, OLD])
TOKEN = SIGNER.sign(pack_names("flight-delay", "boosted-vs-logistic"), 1 << 40 | 7, 1_800_000_000_000_000, 2**64 - 1)
WORD = st.integers(0, 2**64 - 1)
NAME = st.text(max_size=60)
ALPHABET = tuple(b"%c" % letter for letter in b"ABCDabcd0189-_=+/ \n")


def rejected(text: str) -> None:
    with pytest.raises(TokenRejected, match="is not valid"):
        SIGNER.verify(text)


@FUZZ
@given(NAME, NAME, WORD, WORD, WORD, st.sampled_from([OLD, NEW]))
def test_what_is_signed_is_what_is_verified(
    endpoint: str, experiment: str, decision: int, at: int, bucket: int, key: SigningKey
) -> None:
    text = Signer([key]).sign(pack_names(endpoint, experiment), decision, at, bucket).decode("ascii")
    assert SIGNER.verify(text) == Token(endpoint, experiment, decision, at, bucket)
    with pytest.raises(TokenRejected):
        Signer([STRANGER]).verify(text)


@FUZZ
@given(edited([TOKEN], ALPHABET))
def test_a_token_that_was_changed_is_rejected(text: bytes) -> None:
    if text != TOKEN:
        rejected(text.decode("latin-1"))


@FUZZ
@given(edited([base64.urlsafe_b64decode(TOKEN + b"=" * (-len(TOKEN) % 4))], (b"\0", b"\x01", b"\xff", b"flight")))
def test_bytes_of_a_token_that_were_changed_are_rejected(raw: bytes) -> None:
    text = base64.urlsafe_b64encode(raw).rstrip(b"=")
    if text != TOKEN:
        rejected(text.decode("ascii"))


def test_no_single_bit_may_differ() -> None:
    for place in range(len(TOKEN) * 8):
        changed = bytearray(TOKEN)
        changed[place // 8] ^= 1 << place % 8
        rejected(changed.decode("latin-1"))


@FUZZ
@given(st.one_of(st.text(), st.binary(max_size=400).map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
def test_text_that_is_no_token_is_rejected(text: str) -> None:
    rejected(text)
