"""Why a pipeline failed, in one line, out of what runners say: texts with tracebacks of Python's and Java's."""

from __future__ import annotations

import re

_TRACEBACK = "Traceback (most recent call last):"
#: What follows Python's traceback where Java passes it on: its own frames and causes.
_JAVA = re.compile(r"^(\tat |\s+at [\w.$/@]+\(|Caused by: |\t?\.\.\. \d+ more|Suppressed: )")
_CAUSE = re.compile(r"^Caused by: (.*)$", re.MULTILINE)
#: "beam_jobs.errors.JobError: the message"
_NAMED = re.compile(r"^(?:[A-Za-z_$][\w$]*\.)*([A-Za-z_$][\w$]*)(?:: (.*))?$")


def reason(error: BaseException) -> str:
    """Why a pipeline failed, in one line: Beam gives the error of a step as text, with its traceback."""
    return reason_in(str(error)) or type(error).__name__


def reason_in(text: str) -> str:
    """The reason in such a text; empty if it says nothing."""
    last = _raised(text) or _caused(text) or _last_line(text)
    last = last.split(" [while running")[0].strip()
    # "beam_jobs.errors.JobError: the message [while running 'the step']"
    named = _NAMED.match(last)
    return named[2] if named and named[2] else last


def _raised(text: str) -> str:
    """What Python's last traceback ends with: the first line after its frames."""
    _, found, block = text.rpartition(_TRACEBACK)
    if not found:
        return ""
    for line in block.splitlines()[1:]:
        if _JAVA.match(line):
            break
        if line.strip() and not line.startswith(" "):
            return line.strip()
    return ""


def _caused(text: str) -> str:
    """Java's last cause, without its class where it has a message."""
    causes = _CAUSE.findall(text)
    return str(causes[-1]) if causes else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _JAVA.match(line)]
    return lines[-1] if lines else ""
