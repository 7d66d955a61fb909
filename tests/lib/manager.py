#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
"""A service manager of one service, with a descriptor store, as sd_notify(3) describes it.

    manager.py DIR run COMMAND...    until "quit"
    manager.py DIR restart|kill|stop|start|quit|status
    manager.py DIR stray NAME

restart and kill end the service, in the two ways, and start it again. stop leaves it stopped.
Each returns when the service has said READY=1, or has ended, and prints what status does: the pid,
how many strays have no other end any more, and the names in the store. stray puts a socket of its
own there.

As systemd does: a descriptor comes under its name, once for each; what hangs up is dropped; a
message is taken from the service's main process only. As its manual warns of: what a process says
just before it ends may come too late, so each message is read a moment after it was sent.
"""

import array
import os
import select
import signal
import socket
import struct
import sys
import time

LATE_S = 0.02
READY_S = 60


def is_readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


class Manager:
    def __init__(self, folder, command):
        self.folder = folder
        self.command = command
        self.store = []  # (name, descriptor)
        self.strays = []  # our ends
        self.pid = self.pidfd = None
        self.is_ready = False
        self.wanted = True
        self.is_over = False
        self.waiting = None  # the client, and the time until which it waits
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.notify.bind(os.path.join(folder, "notify"))
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.bind(os.path.join(folder, "control"))
        self.control.listen()

    # ---- the service ----

    def start(self):
        names = [name for name, _ in self.store]
        # Above all numbers that the service is to find them under.
        high = [os.dup2(fd, 200 + i) for i, (_, fd) in enumerate(self.store)]
        self.is_ready = False
        pid = os.fork()
        if pid == 0:
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i)
            os.closerange(3 + len(high), 1000)
            env = dict(os.environ, NOTIFY_SOCKET=os.path.join(self.folder, "notify"))
            env["FDSTORE"] = "64"
            if names:
                env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(names)),
                           LISTEN_FDNAMES=":".join(names))
            os.execvpe(self.command[0], self.command, env)
        for fd in high:
            os.close(fd)
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def ended(self):
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.pid = self.pidfd = None
        if self.wanted:
            self.start()
        elif self.waiting:
            self.answer()

    # ---- messages ----

    def forget(self, name):
        for entry in [e for e in self.store if e[0] == name]:
            os.close(entry[1])
            self.store.remove(entry)

    def message(self):
        time.sleep(LATE_S)
        data, ancillary, _, _ = self.notify.recvmsg(4096, 4096)
        fds, pid = array.array("i"), None
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(value[:len(value) - len(value) % fds.itemsize])
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid = struct.unpack("3i", value)[0]
        said = dict(line.split("=", 1) for line in data.decode().split("\n") if "=" in line)
        fds = list(fds)
        is_gone = not self.pidfd or is_readable(self.pidfd)
        if pid == self.pid and not is_gone:
            if said.get("FDSTORE") == "1":
                self.store += [(said.get("FDNAME", "stored"), fd) for fd in fds]
                fds = []
            if said.get("FDSTOREREMOVE") == "1":
                self.forget(said["FDNAME"])
            if said.get("READY") == "1":
                self.is_ready = True
                if self.waiting:
                    self.answer()
        # A barrier is a descriptor that is closed when all that came before it is done.
        for fd in fds:
            os.close(fd)

    # ---- commands ----

    def answer(self):
        closed = sum(1 for s in self.strays if is_readable(s))
        names = " ".join(sorted(name for name, _ in self.store))
        self.waiting.sendall(f"{self.pid} {closed} {names}\n".encode())
        self.waiting.close()
        self.waiting = None

    def command_came(self):
        client, _ = self.control.accept()
        words = client.recv(4096).decode().split()
        self.waiting = client
        if words[0] == "status":
            self.answer()
        elif words[0] == "stray":
            ours, theirs = socket.socketpair()
            self.strays.append(ours)
            self.store.append((words[1], theirs.detach()))
            self.answer()
        elif words[0] == "start":
            self.wanted = True
            self.start()
        else:
            self.wanted = words[0] in ("restart", "kill")
            self.is_over = words[0] == "quit"
            if self.pid:
                os.kill(self.pid, signal.SIGKILL if words[0] == "kill" else signal.SIGTERM)
            elif not self.wanted:
                self.answer()

    def run(self):
        self.start()
        while self.pid or not self.is_over:
            poll = select.poll()
            poll.register(self.notify, select.POLLIN)
            poll.register(self.control, select.POLLIN)
            if self.pidfd:
                poll.register(self.pidfd, select.POLLIN)
            for _, fd in self.store:
                poll.register(fd, 0)
            ready = [fd for fd, _ in poll.poll()]
            # In systemd's order.
            if self.notify.fileno() in ready:
                self.message()
                continue
            for entry in [e for e in self.store if e[1] in ready]:
                os.close(entry[1])
                self.store.remove(entry)
            if self.pidfd in ready:
                self.ended()
            elif self.control.fileno() in ready:
                self.command_came()


def ask(folder, words):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(READY_S)
        s.connect(os.path.join(folder, "control"))
        s.sendall(" ".join(words).encode())
        answer = b""
        while part := s.recv(4096):
            answer += part
    print(answer.decode(), end="")
    return 0 if answer else 1


if __name__ == "__main__":
    if sys.argv[2] == "run":
        Manager(sys.argv[1], sys.argv[3:]).run()
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
