"""The memory in which a detector process tells what it is at: what is read was said, whenever one looks."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from beam_jobs.processes.place import Place, memory_file

WRITER = """
import sys
from beam_jobs.processes.place import Place
place = Place(int(sys.argv[1]))
print(flush=True)
while True:
    for first in range(7):
        place.set(range(first, 2 * first + 1))
"""


def test_what_is_read_while_it_is_written_was_said() -> None:
    descriptor = memory_file()
    place = Place(descriptor)
    place.set((0,))
    command = [sys.executable, "-c", WRITER, str(descriptor)]
    with subprocess.Popen(command, pass_fds=[descriptor], stdout=subprocess.PIPE) as writer:
        os.close(descriptor)
        assert writer.stdout is not None
        writer.stdout.readline()
        begun, seen = time.monotonic(), set()
        try:
            while time.monotonic() < begun + 2:
                at = place.get()
                seen.add((at.position, at.pictures))
                assert at.since >= begun - 60
        finally:
            writer.kill()
    assert seen == {(first, first + 1) for first in range(7)}
