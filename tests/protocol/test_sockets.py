# SPDX-License-Identifier: Apache-2.0
"""Sockets have the agreed options, and bounds that hold."""

import pytest
import zmq

from gencomp_protocol import sockets
from gencomp_protocol.errors import BadKnob, ServerUnreachable


@pytest.fixture
def context():
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def pair(context):
    router, address = sockets.server_socket(context, "127.0.0.1", 0)
    client = sockets.client_socket(context, address)
    yield router, client
    router.close(linger=0)
    client.close(linger=0)


@pytest.mark.parametrize("side", [0, 1], ids=["server", "client"])
def test_a_socket_has_none_of_the_librarys_defaults(pair, side):
    made = pair[side]
    assert made.getsockopt(zmq.LINGER) == 500
    assert (made.getsockopt(zmq.SNDHWM), made.getsockopt(zmq.RCVHWM)) == (1000, 1000)
    assert made.getsockopt(zmq.MAXMSGSIZE) == 16777216
    assert made.getsockopt(zmq.HEARTBEAT_IVL) == 2000
    assert made.getsockopt(zmq.HEARTBEAT_TIMEOUT) == 10000


def test_a_frame_over_the_limit_is_dropped_and_the_next_client_is_served(context, pair):
    router, client = pair
    client.send(b"x" * (16777216 + 1))
    other = sockets.client_socket(context, router.getsockopt_string(zmq.LAST_ENDPOINT))
    other.send(b"small")
    assert router.poll(5000)
    assert router.recv_multipart()[1] == b"small"
    assert not router.poll(50)
    other.close(linger=0)


def test_sending_to_a_client_that_is_gone_is_an_error(pair):
    router, _ = pair
    with pytest.raises(zmq.ZMQError) as error:
        router.send_multipart([b"nobody", b"hello"])
    assert error.value.errno == zmq.EHOSTUNREACH


def test_a_port_that_is_taken_is_told_with_a_cure(context, pair):
    router, _ = pair
    _, port = sockets.split_address(router.getsockopt_string(zmq.LAST_ENDPOINT))
    with pytest.raises(ServerUnreachable, match="port 0"):
        sockets.server_socket(context, "127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("farm.example", False),
        ("localhost.evil.example", False),
    ],
)
def test_loopback_is_told_without_asking_a_name_server(host, loopback):
    assert sockets.is_loopback(host) is loopback


def test_an_address_is_split():
    assert sockets.split_address("tcp://127.0.0.1:4001") == ("127.0.0.1", 4001)


@pytest.mark.parametrize("text", ["", "tcp://a", "tcp://a:0", "tcp://a:70000", "ipc:///tmp/x"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(BadKnob, match="tcp://HOST:PORT"):
        sockets.split_address(text)


def test_knocking_tells_who_listens(pair):
    router, _ = pair
    sockets.knock(router.getsockopt_string(zmq.LAST_ENDPOINT), 1.0)


def test_an_address_of_ip_version_6_works_like_any_other(context):
    try:
        router, address = sockets.server_socket(context, "::1", 0)
    except ServerUnreachable:
        pytest.skip("this machine has no IPv6")
    client = sockets.client_socket(context, address)
    sockets.knock(address, 1.0)
    client.send(b"six")
    assert router.poll(5000)
    assert router.recv_multipart()[1] == b"six"
    router.close(linger=0)
    client.close(linger=0)


@pytest.mark.parametrize(
    ("host", "is_one"),
    [("127.0.0.1", True), ("::", True), ("0.0.0.0", True), ("gpu1", False), ("*", False)],
)
def test_an_address_to_listen_on_is_one_of_ip(host, is_one):
    assert sockets.is_address(host) is is_one


def test_what_a_server_demands_is_told_by_its_greeting(context):
    public, secret = sockets.new_pair()
    made = sockets.router_socket(context)
    plain = sockets.listen(made, "127.0.0.1", 0)
    sockets.demand_keys(made, secret, "test")
    keyed = sockets.listen(made, "127.0.0.1", 0)
    assert sockets.mechanism_of(plain, 2.0) == sockets.PLAIN
    assert sockets.mechanism_of(keyed, 2.0) == sockets.CURVE
    made.close(linger=0)
    assert sockets.mechanism_of("tcp://127.0.0.1:9", 0.5) == ""
    assert len(public) == 64
