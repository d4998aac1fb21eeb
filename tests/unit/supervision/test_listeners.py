"""Addresses as people write them, and socket files that are nobody's any more."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

from gateway.supervision.listeners import Address, ListenError, listen
from gateway.supervisor import NodeSettings, Supervisor, SupervisorError


def test_a_free_port_is_told_in_the_form_of_its_family() -> None:
    for host in ("127.0.0.1", "::1"):
        found = listen(Address(host, 0))
        found.close()
        assert found.address.host == host
        port = found.address.port
        assert str(found.address) == (f"[::1]:{port}" if ":" in host else f"127.0.0.1:{port}")


def test_a_socket_file_is_for_its_owner_and_group_and_can_be_removed(tmp_path: Path) -> None:
    address = Address("", 0, str(tmp_path / "a.sock"))
    first = listen(address)
    assert first.address == address
    assert Path(address.path).stat().st_mode & 0o777 == 0o660
    with pytest.raises(ListenError, match=f"cannot listen on unix:{address.path}: Address already in use"):
        listen(address)
    first.sock.close()
    second = listen(address)  # nobody answers on what was left, so it is replaced
    first.remove()
    assert Path(address.path).exists(), "it is somebody else's by now"
    for _ in range(2):
        second.close()
        assert not Path(address.path).exists()


def test_who_cannot_have_all_ports_leaves_no_socket_file(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        node = NodeSettings(
            config=tmp_path / "gateway.yaml",
            data_dir=tmp_path / "data",
            data=Address("", 0, str(tmp_path / "data.sock")),
            admin=Address("", 0, str(tmp_path / "admin.sock")),
            metrics=Address("127.0.0.1", taken.getsockname()[1]),
            workers=1,
        )
        with pytest.raises(ListenError):
            Supervisor(node).start()
    assert not list(tmp_path.glob("*.sock"))


def test_who_cannot_say_where_it_listens_does_not_start(tmp_path: Path) -> None:
    port = Address("127.0.0.1", 0)
    node = NodeSettings(tmp_path / "gateway.yaml", tmp_path, data=port, admin=port, metrics=port, workers=1)
    (tmp_path / "node.new").mkdir()
    with pytest.raises(SupervisorError, match=r"node.json: cannot be written: Is a directory"):
        Supervisor(node).start()


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
