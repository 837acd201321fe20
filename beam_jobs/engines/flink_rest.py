"""Flink's REST interface: what the cluster is, what becomes of a job, and how it is cancelled.

https://nightlies.apache.org/flink/flink-docs-stable/docs/ops/rest_api/
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beam_jobs.errors import UsageError

_SECONDS = 10.0

#: States that a job does not leave.
FINAL = ("FINISHED", "FAILED", "CANCELED")


def address_of(master: str) -> str:
    """The address of `--flink_master`."""
    address = master.strip().rstrip("/")
    return address if address.startswith(("http://", "https://")) else f"http://{address}"


@dataclass(frozen=True, slots=True)
class Job:
    """A job of a cluster: Flink's id, and its state in Flink's words."""

    id: str
    state: str


@dataclass(frozen=True, slots=True)
class FlinkRest:
    """A cluster, by the address of its JobManager's REST interface.

    Args:
        address: `http://HOST:PORT`, without a slash at its end.
    """

    address: str

    @staticmethod
    def of(master: str) -> FlinkRest:
        """The cluster of `--flink_master`.

        Raises:
            UsageError: nobody answers there, or it is not Flink.
        """
        address = address_of(master)
        rest = FlinkRest(address)
        try:
            known = "flink-version" in rest._get("/config")
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise UsageError(
                f"--flink_master {master}: no Flink cluster answers at {address} ({why}). It takes HOST:PORT of the"
                " JobManager's REST interface, which is 8081 unless configured otherwise, or [local]."
            ) from error
        if not known:
            raise UsageError(f"--flink_master {master}: what answers at {address} is not Flink.")
        return rest

    def version(self) -> str:
        """The release, as `1.20.5`."""
        return str(self._get("/config")["flink-version"])

    def slots(self) -> int:
        """How many there are in all."""
        return int(self._get("/overview")["slots-total"])

    def job(self, name: str) -> Job | None:
        """The newest job of that name; None if there is none (yet)."""
        jobs = [one for one in self._get("/jobs/overview")["jobs"] if one["name"] == name]
        newest = max(jobs, key=lambda one: one["start-time"], default=None)
        return None if newest is None else Job(newest["jid"], newest["state"])

    def failure(self, job_id: str) -> str:
        """What ended a job, with its stack trace; empty if nothing did."""
        history = self._get(f"/jobs/{job_id}/exceptions").get("exceptionHistory", {}).get("entries", [])
        return str(history[0]["stacktrace"]) if history else ""

    def cancel(self, job_id: str) -> None:
        """Asks for the end of a job; it takes a moment."""
        self._ask(urllib.request.Request(f"{self.address}/jobs/{job_id}?mode=cancel", method="PATCH"))

    def _get(self, path: str) -> Mapping[str, Any]:
        answer = json.loads(self._ask(urllib.request.Request(self.address + path)))
        if not isinstance(answer, dict):
            raise ValueError(f"{self.address}{path} did not answer with an object")
        return answer

    def _ask(self, request: urllib.request.Request) -> bytes:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            return bytes(answer.read())
