"""Golden vectors: whoever reimplements the assignment in another language must get these numbers.

Recompute with b2sum or any BLAKE2b: the key of a salt is BLAKE2b-256 personalised "gateway.salt.v1", or
"gateway.shadow.1" for the draw of who is shadowed; the bucket is BLAKE2b-64 under that key; the stored hash is
BLAKE2b-128 under the pepper.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from gateway.assignment.hashing import bucket, salt_key, shadow_key, unit_digest
from gateway.assignment.ranges import origin
from gateway.plan import HASH_SPACE

SALT_KEYS = {
    "": "e62a7a841d06879c67b509e54d1a6a4e8257f7d359c6d1256b2dece37dd6a0ba",
    "exp-1": "e533c8bf9180f0f1e7ff25975a0f469439a8f99be94670bd522b2ff7cbb4a2aa",
    "flight-delay": "61c825dd5c7af00b611d45fc88633bb06160820de99ffb766c43f97f81d9f23c",
    "boosted-vs-logistic": "40a9350cfc545f376279e0793220f57c79bfd61132a752f056adcd3aee939c23",
    "Ünïcode ✓": "c2fc7f7c5f270f5b3ede18e44e931b567953f018a4378e4cf3cf31d62e4bc8cf",
    "x" * 300: "ed08a0fd3e5b79ce49a58af7fd8285cdd20bb3d7d6fcd1bd6c4901d90ac0e4fe",
}
BUCKETS = {
    ("exp-1", b""): 3950161108598233659,
    ("exp-1", b"user-1"): 6714227301353526037,
    ("exp-1", b"user-2"): 392745950414586314,
    ("exp-2", b"user-1"): 11299938187868599984,
    ("", b"user-1"): 17489243727229043428,
    ("boosted-vs-logistic", b"42"): 7162929222003454083,
    ("boosted-vs-logistic", b"j\xc3\xbcrgen"): 16439765585980201036,
    ("exp-1", b"\x00\xff"): 755899788638776604,
}
SHADOW_KEYS = {
    "": "88b21f44393d790f24a2c272a7e507276ca57fdfc82198a5114fea27ce930f32",
    "exp-1": "23e8f52eccec6d121c53379f8370a764c18026ad8636115512a9a43275808a22",
    "Ünïcode ✓": "8473cd4569ec5da85f03b940ec5977587610ab493bcc4c9b804759a813e44e75",
}
SHADOW_BUCKETS = {
    ("exp-1", b"user-1"): 10329261895801621959,
    ("exp-1", b"user-2"): 14890256976723174388,
    ("exp-2", b"user-1"): 12579256542192221260,
    ("exp-1", b"\x00\xff"): 12531788367793988004,
}
UNIT_DIGESTS = {
    ("2222222222222222222222222222222222222222222222222222222222222222", b"user-1"): "49665681fc0984e369e5b232d84b1080",
    ("2222222222222222222222222222222222222222222222222222222222222222", b"user-2"): "b781e965466b82af7a6c0e732666b6ec",
    ("0000000000000000000000000000000000000000000000000000000000000000", b"user-1"): "4273e4449880c0b01fef97796986388b",
    ("00010203", b""): "412f55b208f12dab51786d1a38f82a1b",
}
ORIGINS = {
    ("exp-1", "boosted"): 9279343875396752650,
    ("exp-1", "crashing"): 3977233216981545477,
    ("exp-2", "boosted"): 12485786318202988054,
    ("flight-delay", "twin"): 14861526475343765217,
}


@pytest.mark.parametrize(("salt", "key"), SALT_KEYS.items())
def test_salt_key_is_the_golden_one(salt: str, key: str) -> None:
    assert salt_key(salt).hex() == key


@pytest.mark.parametrize(("given", "value"), BUCKETS.items())
def test_bucket_is_the_golden_one(given: tuple[str, bytes], value: int) -> None:
    assert bucket(salt_key(given[0]), given[1]) == value


@pytest.mark.parametrize(("salt", "key"), SHADOW_KEYS.items())
def test_shadow_key_is_the_golden_one(salt: str, key: str) -> None:
    assert shadow_key(salt).hex() == key


@pytest.mark.parametrize(("given", "value"), SHADOW_BUCKETS.items())
def test_shadow_draw_is_the_golden_one(given: tuple[str, bytes], value: int) -> None:
    assert bucket(shadow_key(given[0]), given[1]) == value


@pytest.mark.parametrize(("given", "value"), UNIT_DIGESTS.items())
def test_stored_hash_is_the_golden_one(given: tuple[str, bytes], value: str) -> None:
    assert unit_digest(bytes.fromhex(given[0]), given[1]).hex() == value


@pytest.mark.parametrize(("given", "value"), ORIGINS.items())
def test_origin_is_the_golden_one(given: tuple[str, str], value: int) -> None:
    assert origin(*given) == value


def test_a_second_implementation_agrees() -> None:
    """BLAKE2b by its incremental interface, and the integer read byte by byte."""
    for number in range(200):
        unit = f"user-{number}".encode()
        key = hashlib.blake2b(digest_size=32, person=b"gateway.salt.v1")
        key.update(b"another-salt")
        inner = hashlib.blake2b(key=key.digest(), digest_size=8)
        inner.update(unit)
        value = 0
        for byte in inner.digest():
            value = value * 256 + byte
        assert bucket(salt_key("another-salt"), unit) == value


def test_hashes_do_not_depend_on_the_process() -> None:
    program = (
        "from gateway.assignment.hashing import bucket, salt_key\n"
        "print(*(bucket(salt_key('exp-1'), str(n).encode()) for n in range(50)))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert answers == {b" ".join(b"%d" % bucket(salt_key("exp-1"), b"%d" % n) for n in range(50)) + b"\n"}


@pytest.mark.parametrize("other", [salt_key("exp-2"), shadow_key("exp-1")])
def test_two_keys_draw_independently(other: bytes) -> None:
    """Who falls into the first half under one is spread evenly under the other: shadowed or not, variants are mixed."""
    one = salt_key("exp-1")
    units = [b"%d" % n for n in range(20_000)]
    first_half = [unit for unit in units if bucket(one, unit) < HASH_SPACE // 2]
    both = sum(bucket(other, unit) < HASH_SPACE // 2 for unit in first_half)
    assert abs(both - len(first_half) / 2) < 5 * (len(first_half) / 4) ** 0.5
