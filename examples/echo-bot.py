#!/usr/bin/env python3
"""A bot that says back what is written to it, by `fastchat rpc`: echo-bot.py [OPTIONS OF fastchat]

What nobody has seen is answered; a message is marked as read when its answer is stored. The answer's id is
made from the message's place, so that a bot that was killed in between answers once: the same id sends
nothing twice. What can be called, and what comes back, says `fastchat rpc --schema`.
"""

import collections
import hashlib
import json
import os
import subprocess
import sys

PAGE = 100
WAIT_MS = 30_000


class Fastchat:
    """Calls in order; what happens meanwhile is kept."""

    def __init__(self, options):
        program = [os.environ.get("FASTCHAT", "fastchat"), "rpc", *options]
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.events = collections.deque()
        self.calls = 0

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(self.process.wait() or 1)
        return json.loads(line)

    def call(self, method, **params):
        self.calls += 1
        call = {"jsonrpc": "2.0", "id": self.calls, "method": method, "params": params}
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        while (answer := self.read()).get("id") != self.calls:
            self.events.append(answer["params"])
        if "error" in answer:
            raise RuntimeError(answer["error"]["message"])
        return answer["result"]

    def wait_for_messages(self):
        while True:
            event = self.events.popleft() if self.events else self.read()["params"]
            if event["type"] in ("message", "missed"):
                return


def answer(chat, message):
    if message["kind"] != "text" or message["own"] or message.get("deleted"):
        return
    place = f'{message["conversation"]}/{message["incarnation"]}/{message["seq"]}'
    reply = hashlib.sha256(f"echo/{place}".encode()).hexdigest()[:32]
    # Names of groups may be the same, ids are not.
    group = message["with"].startswith("#")
    to = message["conversation"] if group else message["with"]
    try:
        chat.call("send", id=reply, to=to, text=message["text"], wait_ms=WAIT_MS)
    except RuntimeError as error:
        print(f"{to}: {error}", file=sys.stderr)


def main():
    chat = Fastchat(sys.argv[1:])
    while True:
        for message in chat.call("unread", limit=PAGE)["messages"]:
            answer(chat, message)
            chat.call("mark_read", conversation=message["conversation"], seq=message["seq"])
        if not chat.call("unread", limit=1)["messages"]:
            chat.wait_for_messages()


if __name__ == "__main__":
    main()
