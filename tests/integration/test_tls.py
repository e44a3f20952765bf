"""A broker that is reached by TLS: whose authority and name are checked, as the address says."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.schemas.errors import BrokerError
from tests.support.broker import Inbox, connect, message, running_broker
from tests.support.wire import wire_to_rabbitmq

SHORT = 3
"""Seconds to wait for what will not come, and time enough to see why."""

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate of it for ``localhost``, and another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        openssl(
            "req", "-x509", *KEY, "-subj", f"/CN={name}", "-days", "2", "-addext", "keyUsage=critical,keyCertSign",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
        )  # fmt: skip
    openssl("req", *KEY, "-subj", "/CN=broker", "-keyout", folder / "broker.key", "-out", folder / "broker.csr")
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost")
    openssl(
        "x509", "-req", "-in", folder / "broker.csr", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
        "-CAcreateserial", "-days", "2", "-extfile", names, "-out", folder / "broker.pem",
    )  # fmt: skip
    return folder


@pytest.fixture
async def secure_url(amqp_url: str, certificates: Path) -> AsyncIterator[str]:
    """The broker's address behind what ends TLS, as ``localhost``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "broker.pem", certificates / "broker.key")
    async with wire_to_rabbitmq(amqp_url, context) as (_, url):
        yield url.replace("@127.0.0.1:", "@localhost:")


async def test_messages_pass_where_authority_and_name_are_right(
    secure_url: str, certificates: Path, app_name: str
) -> None:
    inbox = Inbox()
    url = f"{secure_url}?cafile={certificates / 'ca.pem'}"
    async with running_broker(url, app_name, 1) as broker, broker.consume(inbox):
        await broker.publish([message(1)])
        assert [delivery.envelope for delivery in await inbox.until(1)] == [message(1)]


@pytest.mark.parametrize("query", ["", "?cafile={}/other.pem"])
async def test_an_unknown_authority_is_refused(secure_url: str, certificates: Path, query: str) -> None:
    with pytest.raises(BrokerError, match="certificate verify failed: unable to get local issuer certificate"):
        await connect(f"{secure_url}{query.format(certificates)}", patience=SHORT).__aenter__()


async def test_a_certificate_of_another_name_is_refused(secure_url: str, certificates: Path) -> None:
    elsewhere = secure_url.replace("@localhost:", "@127.0.0.1:")
    with pytest.raises(BrokerError, match=r"certificate is not valid for '127\.0\.0\.1'"):
        await connect(f"{elsewhere}?cafile={certificates / 'ca.pem'}", patience=SHORT).__aenter__()


async def test_a_broker_without_tls_is_no_broker_for_who_wants_it(amqp_url: str) -> None:
    with pytest.raises(BrokerError, match=r"could not be reached within 3 s: .*SSL"):
        await connect(amqp_url.replace("amqp:", "amqps:"), patience=SHORT).__aenter__()
