"""nats-py's client, with TLS or not at all where TLS is asked for."""

# TLS is asked for by one URL with `tls://`, or by an option such as the authority to trust. Then it
# is asked of each server: those of the other URLs, those that the cluster tells of, and the same
# one after a restart. (nats.go does so; nats-py encrypts if the server says that it must, and
# otherwise sends its credentials in the clear.)
#
# CONNECT, which has the credentials, is the first that a client sends. So this is where it is
# refused to a server that does not encrypt, whatever that server has said of itself before.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nats import errors

from responder.nats.login import LoginClient, why
from responder.terminal import visible

SCHEME = "tls://"
OPTIONS = ("tls", "tls_hostname", "tls_handshake_first")


class NoTlsError(errors.Error):
    """TLS is asked for, and a server offers none."""

    def __init__(self, server: str) -> None:
        super().__init__(
            "TLS is asked for (tls://, NATS_CA, NATS_CERT or NATS_TLS_FIRST), "
            f"and the server at {visible(server)} offers none"
        )


class TlsClient(LoginClient):
    """A client of nats-py that sends nothing in the clear where TLS is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._tls_asked_for = False

    async def connect(  # type: ignore[override]  # what follows is by name here
        self, servers: str | Sequence[str], **options: Any
    ) -> None:
        """Connect as nats-py does; raises NoTlsError where it does not try again."""
        urls = [servers] if isinstance(servers, str) else servers
        # nats-py takes `TLS://a` for the host `TLS`, to be asked without TLS.
        urls = [_lower_scheme(each.strip()) for each in urls]
        asking = [each for each in urls if each.startswith(SCHEME)]
        self._tls_asked_for = bool(asking) or any(map(options.get, OPTIONS))
        await super().connect(urls, **options)

    async def close(self) -> None:
        """Close for good, even if it was never opened, which nats-py does not expect."""
        if getattr(self._transport, "_io_writer", self) is None:  # nor do versions before 2.15
            self._transport = None
        if self._flush_queue is not None:
            await super().close()

    @property
    def trouble(self) -> str:
        """Why the server that was tried last was not reached, or does not let this client in."""
        error = self.last_error or TimeoutError()
        if isinstance(error, NoTlsError):
            return str(error)
        return why(error, address=self.address, login="this client")

    def _process_info(  # in older versions it is no coroutine
        self,
        info: dict[str, Any],
        initial_connection: bool = False,  # noqa: FBT001, FBT002 - as nats-py has it
    ) -> Any:
        """Take TLS where it is offered, too: nats-py takes it only where it is required."""
        if initial_connection and self._tls_asked_for and info.get("tls_available"):
            info["tls_required"] = True
        return super()._process_info(info, initial_connection)

    def _connect_command(self) -> bytes:
        """Return CONNECT, with the credentials; raises NoTlsError before they are sent."""
        if self._tls_asked_for and not self._encrypted:
            if self._transport is not None:
                self._transport.close()
            raise NoTlsError(self.address)
        return super()._connect_command()

    @property
    def _encrypted(self) -> bool:
        writer = getattr(self._transport, "_io_writer", None)
        return writer is not None and writer.get_extra_info("ssl_object") is not None


def _lower_scheme(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme.lower()}://{rest}" if separator else url
