"""Where a webhook may go: every way into the operator's own network that a stranger may try is refused."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from ledger.core.errors import InputInvalid
from ledger.core.loopback import HOST
from ledger.webhooks.targets import checked, resolve, target
from tests.ledger.webhooks.conftest import Post
from tests.ledger.webhooks.receivers import receiving

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::10.1.2.3",
    "::ffff:10.1.2.3",
    "::ffff:127.0.0.1",
    "::ffff:0:10.1.2.3",
    "64:ff9b::10.1.2.3",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a01:203",
    "2001:0:4136:e378:8000:63bf:f5fe:fdfc",
    "2002:a01:203::1",
    "2001:db8::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450::1", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_of_an_address_that_is_not_public_is_refused(address: str) -> None:
    for addresses in ([address], ["1.1.1.1", address], [address, "1.1.1.1"]):
        with pytest.raises(InputInvalid) as problem:
            target("https://receiver.example/", private=False, look_up=lambda *_, found=addresses: found)
        assert address not in problem.value.message, "what names are of inside is nobody's business outside"
    assert target("https://receiver.example/", private=True, look_up=lambda *_: [address]).name == "receiver.example"


@pytest.mark.parametrize("address", PUBLIC)
def test_a_name_of_public_addresses_is_not(address: str) -> None:
    shown = f"[{address}]" if ":" in address else address
    found = target("https://receiver.example/hook?a=b", private=False, look_up=lambda *_: [address, "1.1.1.1"])
    assert (found.url, found.host) == (f"https://{shown}:443/hook?a=b", "receiver.example")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ],
)
def test_every_way_to_write_an_address_of_this_machine_is_refused(host: str) -> None:
    """Looked up for real: what decides is the address that would be connected to."""
    with pytest.raises((InputInvalid, OSError)):
        target(f"https://{host}/", private=False)


def test_a_name_is_looked_up_once_and_what_was_looked_at_is_where_it_goes() -> None:
    """A name that is of another address a moment later leads nowhere else."""
    answers = iter([["1.1.1.1"], ["127.0.0.1"]])
    first = target("https://receiver.example:8443/", private=False, look_up=lambda *_: next(answers))
    assert first.url == "https://1.1.1.1:8443/"
    with pytest.raises(InputInvalid):
        target("https://receiver.example:8443/", private=False, look_up=lambda *_: next(answers))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "receiver.example",
        "//receiver.example/",
        "ftp://receiver.example/",
        "file:///etc/passwd",
        "gopher://receiver.example/",
        "javascript:alert(1)",
        "ws://receiver.example/",
        "unix:///run/docker.sock",
        "https://",
        "https:///path",
        "https://:443/",
        "https://receiver.example:0/",
        "https://receiver.example:65536/",
        "https://receiver.example:-1/",
        "https://receiver.example:https/",
        "https://user@receiver.example/",
        "https://user:password@receiver.example/",
        "https://:@receiver.example/",
        "https://@receiver.example/",
        "https://1.1.1.1@127.0.0.1/",
        "https://receiver.example/#fragment",
        "https://receiver.example/\r\nX-Injected: yes",
        "https://receiver.example\r\nX-Injected: yes/",
        "https://receiver.example/\n",
        "https://receiver.example/\t",
        "https://receiver.example/a b",
        " https://receiver.example/",
        "https://receiver.example/\x00",
        "https://receiver.example/\x7f",
        "https://receiver.example/数据",
        "https://receiver。example/",
        "https://①27.0.0.1/",
        "https://[::1/",
        "https://[receiver.example]/",
    ],
)
@pytest.mark.parametrize("private", [False, True])
def test_what_is_no_url_of_a_receiver_is_refused(url: str, private: bool) -> None:
    with pytest.raises(InputInvalid):
        checked(url, private=private)


def test_plain_http_is_for_ones_own_network() -> None:
    with pytest.raises(InputInvalid):
        checked("http://receiver.example/", private=False)
    assert checked("http://receiver.example/", private=True).hostname == "receiver.example"
    assert target("http://127.0.0.1:81/", private=True).url == "http://127.0.0.1:81/"
    assert target("http://[::1]/", private=True, look_up=lambda *_: ["::1"]).url == "http://[::1]:80/"


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", ".example", "receiver.invalid"])
def test_a_name_that_is_no_name_is_of_no_address(host: str) -> None:
    with pytest.raises(OSError):
        target(f"https://{host}/", private=False)


def test_names_are_looked_up_for_real() -> None:
    assert HOST in resolve("localhost", 80)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_the_name_that_tls_asks_for_is_the_name_in_the_url_and_its_certificate_is_checked(
    post: Post, tmp_path: Path
) -> None:
    """The certificate is of another name and of nobody known: nothing is delivered."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", str(key), "-out", str(certificate), "-days", "1", "-subj", "/CN=another.example"]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    named: list[str | None] = []
    context.sni_callback = lambda _connection, name, _context: named.append(name)
    with receiving(context) as receiver:
        webhook = post.register(f"https://receiver.example:{receiver.port}/")
        assert post.work(post.deliverer(look_up=lambda *_: [HOST])) == 0
    assert (named, receiver.deliveries) == (["receiver.example"], [])
    assert "certificate" in post.row(webhook)["last_error"].lower()
