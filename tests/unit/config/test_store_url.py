"""`store`: where it is, and never a password in the file or in a message."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.config.kinds import StoreUrl

_STORE: TypeAdapter[str] = TypeAdapter(StoreUrl)


def taken(value: str) -> str:
    return _STORE.validate_python(value, context={"base": Path("/etc/gateway")})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db/ab",
        "postgresql://gateway@db.example:5433/ab",
        "postgresql://gateway:${PASSWORD}@db/ab",
        "postgresql://${USER}:${PASSWORD}@${HOST}:5432/${NAME}",
        "postgresql://gateway@a:5432,b:5432/ab?target_session_attrs=read-write",
        "postgresql://gateway@[::1]:5432/ab",
        "postgresql://gateway@/ab?host=/var/run/postgresql&sslmode=require",
        "postgresql://db/ab?user=gateway&password=${PASSWORD}",
        "postgresql://gateway%40corp@db/ab",
    ],
)
def test_a_database_is_named_as_libpq_names_it(url: str) -> None:
    assert taken(url) == url


def test_the_short_scheme_is_the_same() -> None:
    assert taken("postgres://gateway@db/ab") == "postgresql://gateway@db/ab"


def test_a_file_is_taken_from_the_folder_of_the_config() -> None:
    assert taken("sqlite:///var/gateway.db") == "sqlite:////etc/gateway/var/gateway.db"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://gateway:s3cret@db/ab",
        "postgresql://gateway:s3cret${X}@db/ab",
        "postgresql://gateway:s3/cret@db/ab",
        "postgresql://gateway:s3@cret@db/ab",
        "postgresql://db/ab?password=s3cret",
        "postgresql://db/ab?user=x&password=s3cret",
        "postgresql://db/ab?sslpassword=s3cret",
        "postgresql://gateway:s3cret@db",
        "postgresql://s3cret",
        "postgresql:s3cret",
        "postgresql://db/ab#s3cret",
        "postgresql://db/s3/cret",
        "postgresql://db/${s3-cret}",
    ],
)
def test_what_is_refused_is_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        taken(url)
    (error,) = caught.value.errors()
    assert "expected" in error["msg"]
    assert "s3" not in error["msg"]
    assert "cret" not in error["msg"]
