"""What the launcher of a run knows from the start, and the manifest says in the end."""

from __future__ import annotations

import msgspec


class ModelRecord(msgspec.Struct, frozen=True):
    """The detector that ran: fingerprint is the sha256 of what it is made of; details are in its own words."""

    name: str
    fingerprint: str
    engine: str
    details: dict[str, str]


class InputsRecord(msgspec.Struct, frozen=True):
    """What was planned and what was left out before planning."""

    planned: int
    parts: int
    repeated: int
    hidden_skipped: int
    folder_links_skipped: int
    special_files_skipped: int
    runs_skipped: int = 0
    #: Of a run that was made `--since` another: how many inputs have other rows there now, none, or those of before.
    changed: int = 0
    gone: int = 0
    unchanged: int = 0
