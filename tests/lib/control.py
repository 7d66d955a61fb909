#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# control.py SOCKET METHOD [PARAMETERS]   one call; prints the answer, exit 1 if it is an error
# control.py SOCKET --misbehave           clients as nobody wants them; the daemon must not care
# control.py SOCKET --at-once FILE SOCKET   several calls at once about one volume: each is answered,
#                                         and what they say fits together
# control.py SOCKET --crowd FILE          a hundred calls that all take their time, each on a connection
#                                         of its own: each is answered
# control.py SOCKET --stall               clients that stop half-way or go on in single bytes; exit 0
#                                         when they are cut
# control.py SOCKET --daemon ANSWER...    a daemon: gives each call, but for those that ask whether it
#                                         is there, the next of the answers; of these "hang-up" is
#                                         none, "turn-away" has the next be said before there is a
#                                         call, and after the last it says nothing more

import json
import os
import random
import select
import socket
import sys
import threading
import time


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.settimeout(150)
    return s


def answer(s):
    data = b""
    while not data.endswith(b"\0"):
        more = s.recv(65536)
        if not more:
            sys.exit("the daemon hung up")
        data += more
    return data[:-1].decode()


def call(path, method, parameters):
    if "." not in method:
        method = "org.rbdcrypt.Host." + method
    s = connect(path)
    s.sendall(json.dumps({"method": method, "parameters": parameters}).encode() + b"\0")
    text = answer(s)
    said = json.loads(text)
    if "error" in said:
        print(said["error"])
        print(json.dumps(said["parameters"]))
        sys.exit(1)
    print(json.dumps(said["parameters"], separators=(",", ":")))


def send_quietly(s, data, fds=()):
    try:
        socket.send_fds(s, [data], list(fds))
    except OSError:
        pass


def misbehave(path):
    rnd = random.Random(5)
    status = b'{"method":"org.rbdcrypt.Host.Status"}\0'
    shapes = [
        b"", b"\0", b"{}\0", b"[]\0", b"null\0", b'"x"\0', b"{", b'{"method":7}\0',
        b'{"method":"x","parameters":[]}\0', b'{"method":"' + b"x" * 1000 + b'"}\0',
        b'{"method":"a\\u0000b"}\0', b'{"method":"a.B","upgrade":true}\0',
        b"[" * 100000 + b"\0", b'{"a":' * 5000 + b"\0", b"x" * 300000,
        b'{"method":"\xff\xfe.X"}\0', status[:-1] + b" trailing\0",
        b'{"method":"org.rbdcrypt.Host.Status","oneway":true}\0',
    ]
    for data in shapes + [rnd.randbytes(rnd.randrange(1, 4000)) for _ in range(100)]:
        s = connect(path)
        send_quietly(s, data)
        if rnd.random() < 0.5:
            s.shutdown(socket.SHUT_WR)
        s.close()
    # Descriptors that nobody asked for, as many as the kernel lets us.
    null = os.open("/dev/null", os.O_RDONLY)
    for count in (1, 16, 17, 253):
        s = connect(path)
        send_quietly(s, status, [null] * count)
        s.close()
    # More clients than there is room for: the silent ones make room.
    crowd = [connect(path) for _ in range(700)]
    call(path, "Status", {})
    for s in crowd:
        s.close()
    # Many calls at once, and one that half-closes, get their answers; oneway gets none.
    s = connect(path)
    s.sendall(status * 50 + b'{"method":"org.rbdcrypt.Host.Status","oneway":true}\0' + status)
    s.shutdown(socket.SHUT_WR)
    data = b""
    while True:
        more = s.recv(65536)
        if not more:
            break
        data += more
    assert data.count(b"\0") == 51, data.count(b"\0")
    # A message in small pieces is one all the same.
    s = connect(path)
    for byte in status:
        s.sendall(bytes([byte]))
    answer(s)


def start_call(path, method, parameters):
    s = connect(path)
    s.sendall(json.dumps({"method": "org.rbdcrypt.Host." + method, "parameters": parameters}).encode() + b"\0")
    return s


# "" for success, or the exit status a command would have had.
def finish_call(s):
    said = json.loads(answer(s))
    s.close()
    return said["parameters"]["status"] if "error" in said else ""


def at_once(path, volume, target):
    def serve():
        return start_call(path, "Serve", {"spec": "file:" + volume, "options": ["socket=" + target]})

    for _ in range(10):
        starts = [finish_call(s) for s in [serve() for _ in range(4)]]
        assert sorted(starts, key=str) == ["", 5, 5, 5], starts
        call(path, "Status", {"name": target})
        ends = [finish_call(s) for s in [start_call(path, "Unmap", {"name": target}) for _ in range(4)]]
        # Whoever asks while it ends is told when it has ended; who comes later, that it is not there.
        assert "" in ends and set(ends) <= {"", 4}, ends
        # One that is taken away while it starts has either been there or not.
        s = serve()
        u = start_call(path, "Unmap", {"name": "file:" + volume})
        started, ended = finish_call(s), finish_call(u)
        assert ended in ("", 4), ended
        if ended == 4:
            assert started == "", started
            assert finish_call(start_call(path, "Unmap", {"name": target})) == ""
    assert not os.path.exists(target)


def crowd(path, volume):
    calls = [start_call(path, "Serve", {"spec": "file:" + volume,
                                        "options": ["socket=/nowhere/s", "read-only", "key-timeout=600"],
                                        "keys": [{"source": "exec:/bin/sh -c 'sleep 3; exit 1'"}]})
             for _ in range(100)]
    ends = [finish_call(s) for s in calls]
    assert set(ends) == {2}, ends


def send_bytes(s):
    try:
        while True:
            s.sendall(b"{")
            time.sleep(1)
    except OSError:
        pass


# A byte that was not read yet makes it a reset.
def is_cut(s):
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True


def stall(path):
    status = b'{"method":"org.rbdcrypt.Host.Status"}\0'
    half = connect(path)
    half.sendall(status[:10])
    drip = connect(path)
    threading.Thread(target=send_bytes, args=(drip,), daemon=True).start()
    deaf = connect(path)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    deaf.setblocking(False)
    sent = 0
    try:
        while sent < 50 << 20:
            sent += deaf.send(status * 1000)
    except BlockingIOError:
        pass
    idle = connect(path)
    start = time.monotonic()
    assert half.recv(1) == b"", "not cut"
    waited = time.monotonic() - start
    assert 5 < waited < 60, waited
    assert is_cut(drip), "not cut"
    waited = time.monotonic() - start
    assert 5 < waited < 60, waited
    poll = select.poll()
    poll.register(deaf, 0)
    assert poll.poll(60000), "not cut"
    # Silence is no offence.
    idle.sendall(status)
    answer(idle)


def play_daemon(path, answers):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    silent = []
    while True:
        client, _ = listener.accept()
        data = b""
        if answers and answers[0] == "turn-away":
            client.sendall(answers[1].encode() + b"\0")
            del answers[:2]
            client.close()
            continue
        while not data.endswith(b"\0"):
            data = client.recv(65536)
            if not data:
                break
            if not data.endswith(b"\0"):
                continue
            if not answers:
                silent.append(client)
                break
            said = '{"parameters":{}}' if b".GetInfo" in data else answers.pop(0)
            if said == "hang-up":
                break
            client.sendall(said.encode() + b"\0")
            data = b""
        if client not in silent:
            client.close()


def main():
    path, what = sys.argv[1:3]
    if what == "--misbehave":
        misbehave(path)
    elif what == "--stall":
        stall(path)
    elif what == "--at-once":
        at_once(path, *sys.argv[3:5])
    elif what == "--crowd":
        crowd(path, sys.argv[3])
    elif what == "--daemon":
        play_daemon(path, sys.argv[3:])
    else:
        call(path, what, json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})


main()
