"""A producer or a consumer with stomp.py (python3-stomp) as Debian ships it. What it is told and what it says: ../../interop/protocol.go."""

import collections
import json
import os
import signal
import sys
import threading
import time

import stomp

JOB = json.loads(os.environ["JOB"])
HEARTBEAT = 4000  # milliseconds: the library offers them, so this client uses them
RECEIPT = "last"

said = threading.Lock()


def say(line):
    with said:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def fail(message, headers=None):
    """Says what went wrong and ends: there is no fail-over logic here."""
    say("E " + json.dumps({"message": str(message), "headers": headers or {}}))
    os._exit(1)


class Listener(stomp.ConnectionListener):
    """What stomp.py calls on its own thread."""

    def __init__(self):
        self.changed = threading.Condition()
        self.receipts = set()  # asked for and not seen
        self.unacked = collections.deque()
        self.leaving = False
        self.gone = threading.Event()

    def on_error(self, frame):
        fail(frame.headers.get("message"), frame.headers)

    def on_heartbeat_timeout(self):
        fail("heart-beat timeout")

    def on_disconnected(self):
        if not self.leaving:
            fail("disconnected")
        self.gone.set()

    def on_receipt(self, frame):
        name = frame.headers["receipt-id"]
        if name.isdigit():
            say(f"C {name}")
        with self.changed:
            self.receipts.discard(name)
            self.changed.notify_all()

    def on_message(self, frame):
        try:
            say(f"M {' '.join(frame.body.split(' ', 2)[:2])} {len(frame.body)}")
            with self.changed:
                self.unacked.append(frame)
            self.acknowledge(JOB["hold"])
        except Exception as failure:  # it would end stomp.py's thread unheard
            fail(f"{type(failure).__name__}: {failure}")

    def acknowledge(self, keep, receipt=None):
        while True:
            with self.changed:
                if len(self.unacked) <= keep:
                    return
                frame = self.unacked.popleft()
                last = receipt and not self.unacked
            connection.ack(frame.headers["ack"], receipt=receipt if last else None)
            say("A " + frame.body.split(" ", 2)[1])

    def settle(self, most):
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.receipts) <= most, 60):
                fail(f"{len(self.receipts)} receipts did not come")


listener = Listener()
connection = stomp.Connection12([(JOB["host"], JOB["port"])], heartbeats=(HEARTBEAT, HEARTBEAT), vhost=JOB["vhost"] or None,
                                reconnect_attempts_max=1)
connection.set_listener("", listener)


def produce():
    say("R")
    sys.stdin.readline()
    start = time.monotonic()
    for seq in range(1, JOB["count"] + 1):
        time.sleep(max(0, start + (seq - 1) / JOB["rate"] - time.monotonic()))
        listener.settle(JOB["window"] - 1)
        with listener.changed:
            listener.receipts.add(str(seq))
        say(f"S {seq}")
        body = f"{JOB['run']} {seq} ".ljust(JOB["size"], "x")
        connection.send(JOB["destination"], body, headers=JOB["headers"], receipt=str(seq))
    listener.settle(0)


def consume():
    listener.receipts.add("subscribed")
    connection.subscribe(JOB["destination"], id="1", ack="client-individual", headers={**JOB["headers"], "receipt": "subscribed"})
    listener.settle(0)
    say("R")
    stopped.wait()
    if listener.unacked:
        listener.receipts.add(RECEIPT)
        listener.acknowledge(0, RECEIPT)
        listener.settle(0)


stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
try:
    connection.connect(JOB["login"], JOB["passcode"], wait=True)
    produce() if JOB["role"] == "produce" else consume()
    listener.leaving = True
    connection.disconnect()
    if not listener.gone.wait(30):
        fail("no receipt of DISCONNECT")
except (stomp.exception.StompException, OSError) as failure:
    fail(f"{type(failure).__name__}: {failure}")
say("B")
