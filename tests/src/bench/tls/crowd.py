"""Processes that have a TLS library and do nothing: `crowd.py NUMBER`, which prints `ready` when all are there."""

import os
import signal
import ssl  # noqa: F401 - the library is what each process has
import sys

for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        signal.pause()
        os._exit(0)
print("ready", flush=True)
signal.pause()
