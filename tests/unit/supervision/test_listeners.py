"""Addresses as people write them, and socket files that are nobody's any more."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.listeners import Address, ListenError, address_of, listen, remove


def test_a_free_port_is_told_in_the_form_of_its_family() -> None:
    for host in ("127.0.0.1", "::1"):
        with listen(Address(host, 0)) as sock:
            found = address_of(sock)
        assert found.host == host
        assert str(found) == (f"[::1]:{found.port}" if ":" in host else f"127.0.0.1:{found.port}")


def test_a_socket_file_is_for_its_owner_and_group_and_can_be_removed(tmp_path: Path) -> None:
    address = Address("", 0, str(tmp_path / "a.sock"))
    with listen(address) as sock:
        assert address_of(sock) == address
        assert Path(address.path).stat().st_mode & 0o777 == 0o660
        with pytest.raises(ListenError, match=f"cannot listen on unix:{address.path}: Address already in use"):
            listen(address)
    listen(address).close()  # nobody answers on what was left, so it is replaced
    remove(address)
    remove(address)
    assert not Path(address.path).exists()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="a file that is no socket"):
        listen(Address("", 0, str(path)))
    assert path.read_text() == "data"


def test_a_link_to_a_socket_is_not_followed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "real"))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ListenError, match="a file that is no socket"):
        listen(Address("", 0, str(tmp_path / "link")))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="No such file or directory"):
        listen(Address("", 0, str(tmp_path / "nowhere" / "a.sock")))
