"""A real HTTP server that streams what a declared schedule, or a simulator, decides, in real time.

schedule.py says what is to happen; player.py decides when; dialects.py, replies.py and faults.py say in which bytes;
loop.py, connection.py and server.py carry them; writes.py keeps the truth about when; child.py puts it all in a process.
"""

from inferometer.emulator.child import Orders, emulate, serve_child
from inferometer.emulator.schedule import LIKE, Asked, Schedule, Wire
from inferometer.emulator.server import Emulator, Tls
from inferometer.emulator.writes import Report, WriteLog, read_writes

__all__ = [
    "LIKE",
    "Asked",
    "Emulator",
    "Orders",
    "Report",
    "Schedule",
    "Tls",
    "Wire",
    "WriteLog",
    "emulate",
    "read_writes",
    "serve_child",
]
