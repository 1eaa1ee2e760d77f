"""The hook: from an Airflow Connection to a signed, paced, recovering client."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import requests
from airflow.providers.http.hooks.http import HttpHook

from kuaimai.airflow.compat import AirflowNotFoundException, BaseHook, Connection, stored_variables
from kuaimai.airflow.gateway_settings import GatewaySettings
from kuaimai.airflow.provider_info import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR
from kuaimai.airflow.stores import state_store
from kuaimai.airflow.vaults import PREFIX, VariableVault, decoded, write_back
from kuaimai.errors import ConfigError, KuaimaiError, Transient
from kuaimai.gateway.answers import Answer
from kuaimai.gateway.budget import SharedBudget
from kuaimai.gateway.client import CLOCK_WARNING_SECONDS, Client
from kuaimai.gateway.session import Credentials, SessionKeeper
from kuaimai.gateway.session_report import breaker_key
from kuaimai.gateway.tokens import DAY, TokenRecord
from kuaimai.gateway.wire import App, Wire
from kuaimai.state import Store
from kuaimai.state.budgets import Lane

_NO_SUCH_METHOD = "27"


class KuaimaiHook(HttpHook):
    """Connects to Kuaimai's Open Platform.

    The HTTP provider's hook brings proxies, TLS and TCP keep-alive; it never sees the credentials, because it
    would send them as basic authentication and as request headers.

    Args:
        kuaimai_conn_id: a Connection of type Kuaimai, or where that type is missing (drop-in mode) of any
            other, with the same fields.
        now: epoch seconds.
        sleep: waits, seconds.
    """

    conn_name_attr = "kuaimai_conn_id"
    default_conn_name = "kuaimai_default"
    conn_type = "kuaimai"
    hook_name = "Kuaimai (快麦 ERP)"

    def __init__(
        self,
        kuaimai_conn_id: str = default_conn_name,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(method="POST", http_conn_id=kuaimai_conn_id)
        self.kuaimai_conn_id = kuaimai_conn_id
        self._now = now
        self._sleep = sleep
        self._session: requests.Session | None = None

    # The Connection

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        """Return the Connection as the HTTP hook may see it: address, proxies and TLS, nothing else."""
        settings = cls._settings_of(conn_id)
        transport = {"proxies": settings.proxies, "verify": settings.verify}
        return Connection(conn_id=conn_id, conn_type="http", host=settings.url, extra=json.dumps(transport))

    @cached_property
    def settings(self) -> GatewaySettings:
        """The Connection's meaning, read and checked once.

        Raises:
            ConfigError: there is no such Connection, or a field is missing or malformed.
        """
        return self._settings_of(self.kuaimai_conn_id)

    @staticmethod
    def _settings_of(conn_id: str) -> GatewaySettings:
        try:
            connection = BaseHook.get_connection(conn_id)
        except AirflowNotFoundException as error:
            raise ConfigError(
                f"There is no Connection {conn_id}",
                hint="Create it under Admin → Connections: type Kuaimai (Generic where the type is missing), "
                "login = appKey, password = appSecret, extra = access_token and refresh_token.",
            ) from error
        return GatewaySettings.of(connection)

    def _given_now(self) -> Credentials:
        try:
            return self._settings_of(self.kuaimai_conn_id).credentials
        except ConfigError as error:
            # It was right when the task began: someone edits it, or the API server does not answer.
            raise Transient(str(error)) from error

    # What it gives

    def get_conn(
        self,
        headers: dict[Any, Any] | None = None,
        extra_options: dict[str, Any] | None = None,
    ) -> requests.Session:
        """Return the one keep-alive session of this hook."""
        if self._session is None:
            self._session = super().get_conn(headers, extra_options)
        return self._session

    def wire(self) -> Wire:
        """Return what sends single signed requests."""
        given = self.settings.credentials
        return Wire(
            App(given.app_key, given.app_secret, self.settings.sign_method),
            url=self.settings.url,
            transport=self.get_conn(),
            dialect=self.settings.dialect,
            timeout=self.settings.timeout,
            now=self._now,
        )

    @cached_property
    def _store(self) -> Store:
        return state_store(now=self._now)

    def keeper(self) -> SessionKeeper:
        """Return the custodian of this Connection's session."""
        return SessionKeeper(
            self.wire(),
            self._given_now,
            vault=VariableVault(self.kuaimai_conn_id),
            store=self._store,
            name=self.kuaimai_conn_id,
            now=self._now,
            sleep=self._sleep,
            on_rotation=lambda pair: write_back(self.kuaimai_conn_id, self._given_now(), pair),
        )

    def client(self, lane: Lane = "live") -> Client:
        """Return what calls catalogued methods, within the budget that all processes of the appKey share.

        Args:
            lane: `live` before `reconcile` before `backfill`.
        """
        return Client(
            self.wire(),
            self.keeper(),
            budget=SharedBudget(
                lambda: self._store,
                self._budget,
                rate=self.settings.requests_per_second,
                lane=lane,
                sleep=self._sleep,
            ),
            sleep=self._sleep,
            on_retry=self._log_retry,
        )

    @property
    def _budget(self) -> str:
        return f"budget:{hashlib.sha256(self.settings.credentials.app_key.encode()).hexdigest()[:16]}"

    def pace(self) -> float:
        """Return the share of the configured rate that is used now: 1 unless requests were refused lately."""
        return self._store.pace(self._budget)

    def close(self) -> None:
        """Close the HTTP session and the store's connections."""
        if self._session is not None:
            self._session.close()
            self._session = None
        if "_store" in self.__dict__:
            self.__dict__.pop("_store").close()

    def _log_retry(self, error: KuaimaiError, seconds: float) -> None:
        self.log.warning("%s; trying again in %.0f s", error, seconds)

    # The Connection form

    def test_connection(self) -> tuple[bool, str]:
        """Make one signed call with the Connection's credentials; what the form's Test button shows.

        A success also closes the breaker of these credentials: a person has just proved them.
        """
        try:
            given = self.settings.credentials
            record = self._live_record(given)
            answer = self._one_call(record.access_token if record else given.access_token)
            self._store.close_breaker(breaker_key(given))
        except KuaimaiError as error:
            return False, str(error)
        finally:
            self.close()
        return True, self._praise(record, answer)

    def _one_call(self, token: str) -> Answer:
        wire = self.wire()
        try:
            # Its answer is not documented (reference 12.10), so any success counts.
            return wire.send("open.system.time.get", {}, session=token)
        except KuaimaiError as error:
            if error.code != _NO_SUCH_METHOD:
                raise
        return wire.send("erp.shop.list.query", {"pageNo": 1, "pageSize": 20}, session=token)

    def _live_record(self, given: Credentials) -> TokenRecord | None:
        """Return the stored session of these credentials; the form's test runs under an invented id."""
        own = VariableVault(self.kuaimai_conn_id).read()
        others = [decoded(text) for text in stored_variables(PREFIX).values()]
        for stored in (own, *others):
            record = TokenRecord.parsed(stored)
            if record is not None and record.fingerprint == given.fingerprint():
                return record
        return None

    def _praise(self, record: TokenRecord | None, answer: Answer) -> str:
        text = f"Kuaimai accepts these credentials ({answer.method})."
        if record is None or record.expires_at is None:
            text += " How long the session lives is unknown until its first refresh."
        else:
            text += f" The session ends in {(record.expires_at - self._now()) / DAY:.1f} days."
        if answer.clock_offset is not None and abs(answer.clock_offset) > CLOCK_WARNING_SECONDS:
            text += f" This machine's clock is {abs(answer.clock_offset):.0f} s off: synchronise it (NTP)."
        return text

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the names and hidden fields of the Connection form (Airflow 2; 3 reads provider_info)."""
        defaults = {
            name: str(fact["schema"]["default"])
            for name, fact in CONNECTION_FIELDS.items()
            if "default" in fact["schema"]
        }
        return {
            "hidden_fields": UI_FIELD_BEHAVIOUR["hidden-fields"],
            "relabeling": UI_FIELD_BEHAVIOUR["relabeling"],
            "placeholders": {**UI_FIELD_BEHAVIOUR["placeholders"], **defaults},
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the Connection form (Airflow 2; 3 reads provider_info)."""
        # Only Airflow 2's web server has these.
        from flask_appbuilder.fieldwidgets import (  # type: ignore[import-not-found,unused-ignore]
            BS3PasswordFieldWidget,
            BS3TextFieldWidget,
        )
        from flask_babel import lazy_gettext  # type: ignore[import-not-found,unused-ignore]
        from wtforms import PasswordField, StringField  # type: ignore[import-untyped,import-not-found,unused-ignore]

        def field(fact: dict[str, Any]) -> Any:
            secret = fact["schema"].get("format") == "password"
            return (PasswordField if secret else StringField)(
                lazy_gettext(fact["label"]),
                description=fact["description"],
                widget=BS3PasswordFieldWidget() if secret else BS3TextFieldWidget(),
            )

        return {name: field(fact) for name, fact in CONNECTION_FIELDS.items()}
