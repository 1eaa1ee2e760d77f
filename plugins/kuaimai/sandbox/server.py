"""The sandbox as users start it: a world, its switches and a clock behind a real HTTP address."""

from __future__ import annotations

import time
from threading import Thread
from typing import TYPE_CHECKING, Any

from kuaimai.sandbox.control import Clock, Control
from kuaimai.sandbox.faults import Faults
from kuaimai.sandbox.gateway import Gateway
from kuaimai.sandbox.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from kuaimai.sandbox.gateway import RequestRecord
    from kuaimai.sandbox.tokens import DemoCredentials, SessionState
    from kuaimai.sandbox.world import World


class Sandbox:
    """A fake Kuaimai gateway that listens while its `with` block runs.

    Args:
        world: the merchant whose data is served.
        faults: switches; none means the documented behaviour.
        now: epoch seconds; tests pass a clock that they move by hand.
        sleep: used for slow answers only.
        host: address to listen on.
        port: port to listen on, 0 for any free one.
    """

    def __init__(
        self,
        world: World,
        faults: Faults | None = None,
        now: Callable[[], float] = time.time,
        *,
        sleep: Callable[[float], None] = time.sleep,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.world = world
        self.faults = Faults() if faults is None else faults
        self.clock = Clock(now)
        self._gateway = Gateway(world, self.faults, self.clock)
        self._control = Control(self._gateway, self.clock)
        self._sleep = sleep
        self._address = (host, port)
        self._server: Listener | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen and serve in the background."""
        self._server = Listener(self._address, self._gateway, self._control, self.clock, self._sleep)
        self._thread = Thread(target=self._server.run, name="kuaimai-sandbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is None or self._thread is None:
            return
        self._server.halt()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()
        self._server = self._thread = None

    @property
    def root(self) -> str:
        """`http://host:port`; the `rest` dialect and the control endpoints hang below it."""
        if self._server is None:
            raise RuntimeError("the sandbox is not running; use it in a with block or call start()")
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def url(self) -> str:
        """The gateway URL to put into a Connection."""
        return f"{self.root}/router"

    @property
    def credentials(self) -> DemoCredentials:
        """The invented credentials that are valid now."""
        return self._gateway.session.credentials()

    @property
    def session(self) -> SessionState:
        """State of the token: expiry, last refresh, how many; `expire()` and `renew()` change it."""
        return self._gateway.session

    @property
    def requests(self) -> list[RequestRecord]:
        """All gateway requests so far, oldest first, without secrets."""
        return list(self._gateway.requests)

    def truth(
        self, method: str = "erp.trade.outstock.simple.query", *, at: float | None = None
    ) -> dict[str, dict[str, Any]]:
        """Every record that a perfect reader would have now, or at epoch second `at`, by its key as text."""
        return self._gateway.truth(method, at=at)

    def bad(self, method: str | None = None) -> dict[str, str]:
        """Keys of records that a `bad_…` or `no_sid` switch spoilt, with the switch's name; default: sids."""
        return self._gateway.bad(method)
