"""Latency of a topic with 1,000 webhook subscribers, of which some are slow and
some are dead, beside the same good subscribers alone.

    python3 benches/fanout.py PROGRAM [MESSAGES] [PAUSE_SECONDS]

Prints a line of JSON per run: the time from sending an event to the arrival of
its request at each good subscriber, in milliseconds.
"""
import asyncio, json, os, subprocess, sys, tempfile, time

PROGRAM = os.path.abspath(sys.argv[1])
MESSAGES = int(sys.argv[2]) if len(sys.argv) > 2 else 20
PAUSE = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
GOOD, SLOW, DEAD = 930, 50, 20
SLOW_SECONDS = 8.0


class Receiver:
    def __init__(self):
        self.latencies = []
        self.arrived = 0

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                now = time.time()
                lines = head.split(b"\r\n")
                path = lines[0].split(b" ")[1]
                length = 0
                for line in lines[1:]:
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = await reader.readexactly(length)
                if path.startswith(b"/slow"):
                    await asyncio.sleep(SLOW_SECONDS)
                elif path.startswith(b"/good"):
                    sent = json.loads(body)["detail"]["sent"]
                    self.latencies.append(now - sent)
                    self.arrived += 1
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def project(folder, port, dead_port, sick):
    lines = ["rules:", "  all: { pattern: { source: [bench] }, targets: [ { topic: t } ] }",
             "topics:", "  t:", "    subscriptions:"]
    def add(name, port):
        url = f"http://127.0.0.1:{port}/{name}"
        lines.append(f"      {name}: {{ webhook: {{ url: '{url}', allow_private: true }} }}")
    for n in range(GOOD):
        add(f"good{n}", port)
    if sick:
        for n in range(SLOW):
            add(f"slow{n}", port)
        for n in range(DEAD):
            add(f"dead{n}", dead_port)
    os.makedirs(f"{folder}/rules")
    with open(f"{folder}/rules/t.yaml", "w") as file:
        file.write("\n".join(lines) + "\n")
    with open(f"{folder}/pointsman.yaml", "w") as file:
        file.write("node: { listen: 127.0.0.1:0 }\n")


async def post(host, port, body):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                 b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    answer = await reader.read()
    assert b" 202 " in answer.split(b"\r\n")[0], answer
    writer.close()


async def run(sick):
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    closed = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    dead_port = closed.sockets[0].getsockname()[1]
    closed.close()
    with tempfile.TemporaryDirectory() as folder:
        project(folder, port, dead_port, sick)
        log = open(f"{folder}/log", "w+")
        env = dict(os.environ, NO_COLOR="1")
        node = subprocess.Popen([PROGRAM, "run"], cwd=folder, stdout=log, stderr=log, env=env)
        try:
            address = None
            while address is None:
                await asyncio.sleep(0.1)
                assert node.poll() is None, open(f"{folder}/log").read()
                text = open(f"{folder}/log").read()
                if "http=http://" in text:
                    address = text.split("http=http://")[1].split()[0]
            host, http = address.split(":")
            for n in range(MESSAGES):
                event = {"id": f"m{n}", "source": "bench", "detail-type": "T",
                         "detail": {"sent": time.time(), "n": n}}
                await post(host, int(http), json.dumps(event).encode())
                await asyncio.sleep(PAUSE)
            begun = time.time()
            while receiver.arrived < GOOD * MESSAGES and time.time() - begun < 120:
                await asyncio.sleep(0.1)
        finally:
            node.kill()
            node.wait()
    server.close()
    ms = sorted(1000 * l for l in receiver.latencies)
    at = lambda share: round(ms[min(len(ms) - 1, int(share * len(ms)))], 1)
    print(json.dumps({
        "slow": SLOW if sick else 0, "dead": DEAD if sick else 0, "good": GOOD,
        "messages": MESSAGES, "delivered": len(ms), "expected": GOOD * MESSAGES,
        "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0),
    }), flush=True)


async def main():
    for sick in (False, True, False, True):
        await run(sick)

asyncio.run(main())
