"""Decision tokens: what is signed comes back, and nothing else is accepted."""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.assignment.token import MAC_BYTES, Signer, Token, pack_names
from gateway.errors import TokenRejected
from gateway.plan import SigningKey

OLD = SigningKey(id=1, secret="11" * 32)
NEW = SigningKey(id=2, secret="22" * 32)
NAMES = pack_names("flight-delay", "exp-1")
GOLDEN = "AQEAAAcAAAAAAwAGCiQYHkAAgAAAAAAAAAUMZmxpZ2h0LWRlbGF5BWV4cC0x3jPBqXe1uWCEXVSuhyc5iA"


def sign(signer: Signer) -> str:
    return signer.sign(NAMES, 7 << 40 | 3, 1_700_000_000_000_000, 2**63 + 5).decode()


def test_token_is_the_golden_one() -> None:
    assert sign(Signer([OLD])) == GOLDEN


def test_layout_is_what_the_module_says() -> None:
    """A second implementation builds the same bytes."""
    head = struct.pack(">BBQQQ", 1, 1, 7 << 40 | 3, 1_700_000_000_000_000, 2**63 + 5)
    body = head + bytes([12]) + b"flight-delay" + bytes([5]) + b"exp-1"
    mac = blake2b(body, digest_size=16, key=b"\x11" * 32).digest()
    assert urlsafe_b64encode(body + mac).decode().rstrip("=") == GOLDEN


def test_an_authentic_token_says_what_was_signed() -> None:
    expected = Token("flight-delay", "exp-1", 7 << 40 | 3, 1_700_000_000_000_000, 2**63 + 5)
    assert Signer([OLD]).verify(GOLDEN) == expected


@given(
    st.text(max_size=60),
    st.text(max_size=60),
    *(st.integers(0, 2**64 - 1) for _ in range(3)),
)
def test_whatever_is_signed_comes_back(endpoint: str, experiment: str, decision: int, at: int, bucket: int) -> None:
    signer = Signer([NEW])
    token = signer.sign(pack_names(endpoint, experiment), decision, at, bucket).decode()
    assert signer.verify(token) == Token(endpoint, experiment, decision, at, bucket)


def test_every_flipped_bit_is_rejected() -> None:
    raw = urlsafe_b64decode(GOLDEN + "=" * (-len(GOLDEN) % 4))
    for bit in range(8 * len(raw)):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TokenRejected):
            Signer([OLD, NEW]).verify(urlsafe_b64encode(forged).decode().rstrip("="))


def test_every_truncation_is_rejected() -> None:
    for length in range(len(GOLDEN)):
        with pytest.raises(TokenRejected):
            Signer([OLD]).verify(GOLDEN[:length])


@pytest.mark.parametrize("more", ["A", "AA", "AAAA", "=", "==", " ", "\n", "!", "\0", "é", "A" * 5000])
def test_every_extension_is_rejected(more: str) -> None:
    for token in (GOLDEN + more, more + GOLDEN, GOLDEN[:9] + more + GOLDEN[9:]):
        with pytest.raises(TokenRejected):
            Signer([OLD]).verify(token)


def test_spare_bits_of_the_last_character_are_not_a_second_spelling() -> None:
    token = Signer([OLD]).sign(pack_names("a", "b"), 1, 2, 3).decode()
    accepted = 0
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        try:
            Signer([OLD]).verify(token[:-1] + last)
            accepted += 1
        except TokenRejected:
            pass
    assert accepted == 1


@given(st.text(max_size=200))
def test_any_text_is_rejected_in_one_way(text: str) -> None:
    with pytest.raises(TokenRejected, match=r"^the decision token is not valid$"):
        Signer([OLD]).verify(text)


@pytest.mark.parametrize("raw", [b"", b"\1\1", b"\1\1" + b"\0" * 24, b"\1\1" + b"\0" * 40])
def test_short_bodies_with_a_right_mac_are_rejected(raw: bytes) -> None:
    """Only a holder of the key can make these; they must not be an exception of another kind."""
    mac = blake2b(raw, digest_size=MAC_BYTES, key=b"\x11" * 32).digest()
    with pytest.raises(TokenRejected):
        Signer([OLD]).verify(urlsafe_b64encode(raw + mac).decode().rstrip("="))


def test_rotation_keeps_old_tokens_and_signs_new_ones_with_the_new_key() -> None:
    rotated = Signer([NEW, OLD])
    assert rotated.verify(GOLDEN).decision == 7 << 40 | 3
    fresh = sign(rotated)
    assert fresh == sign(Signer([NEW]))
    with pytest.raises(TokenRejected):
        Signer([OLD]).verify(fresh)


def test_a_key_that_is_gone_takes_its_tokens_with_it() -> None:
    with pytest.raises(TokenRejected):
        Signer([NEW]).verify(GOLDEN)


def test_a_known_id_with_another_secret_is_rejected() -> None:
    with pytest.raises(TokenRejected):
        Signer([SigningKey(id=1, secret="33" * 32)]).verify(GOLDEN)


def test_a_signer_without_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Signer([])


def test_names_beyond_255_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="256"):
        pack_names("a" * 256, "b")
