# The metadata services of EC2, Compute Engine and Azure, as far as preemption notices need them, from their
# documentation. Run it with the address and port to listen on. It reads commands from standard input, one a line:
#   notice SECONDS   the machine ends so many seconds from now
#   other            Azure: an event for another machine of the group
#   forget           tokens that were given out are no longer valid
#   silent / answer  close connections without an answer / answer again
import datetime
import http.server
import json
import secrets
import sys
import threading
import time
import urllib.parse

lock = threading.Condition()
state = {"ends": None, "other": False, "silent": False, "tokens": set(), "version": 1, "refused": 0}


def when():
    return datetime.datetime.fromtimestamp(state["ends"], datetime.timezone.utc)


def azure_document():
    events = []
    if state["other"]:
        events.append({"EventId": "B", "EventStatus": "Scheduled", "EventType": "Preempt", "ResourceType": "VirtualMachine",
                       "Resources": ["worker-8"], "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT"})
        events.append({"EventId": "C", "EventStatus": "Scheduled", "EventType": "Freeze", "ResourceType": "VirtualMachine",
                       "Resources": ["worker-7"], "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT"})
    if state["ends"]:
        events.append({"EventId": "A", "EventStatus": "Scheduled", "EventType": "Preempt", "ResourceType": "VirtualMachine",
                       "Resources": ["worker-7"], "NotBefore": when().strftime("%a, %d %b %Y %H:%M:%S GMT")})
    return json.dumps({"DocumentIncarnation": len(events), "Events": events})


class Handler(http.server.BaseHTTPRequestHandler):
    def reply(self, status, body="", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        with lock:
            if state["silent"]:
                self.close_connection = True
                return
        super().handle_one_request()

    def do_PUT(self):
        with lock:
            if self.path != "/latest/api/token":
                return self.reply(404)
            if not 1 <= int(self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "0")) <= 21600:
                return self.reply(400)
            token = secrets.token_urlsafe(40)
            state["tokens"].add(token)
            return self.reply(200, token)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        with lock:
            if url.path.startswith("/latest/"):
                if self.headers.get("X-aws-ec2-metadata-token") not in state["tokens"]:
                    state["refused"] += 1
                    return self.reply(401)
                if url.path != "/latest/meta-data/spot/instance-action" or not state["ends"]:
                    return self.reply(404)
                return self.reply(200, json.dumps({"action": "terminate", "time": when().strftime("%Y-%m-%dT%H:%M:%SZ")}))
            if url.path == "/computeMetadata/v1/instance/preempted":
                if self.headers.get("Metadata-Flavor") != "Google":
                    return self.reply(403)
                if query.get("wait_for_change") == "true" and query.get("last_etag") == str(state["version"]):
                    before = state["version"]
                    lock.wait_for(lambda: state["version"] != before or state["silent"], float(query.get("timeout_sec", 60)))
                body = "TRUE" if state["ends"] else "FALSE"
                return self.reply(200, body, [("Metadata-Flavor", "Google"), ("ETag", str(state["version"]))])
            if self.headers.get("Metadata") != "true":
                return self.reply(400)
            if url.path == "/metadata/instance/compute/name" and query.get("format") == "text":
                return self.reply(200, "worker-7")
            if url.path == "/metadata/scheduledevents" and "api-version" in query:
                return self.reply(200, azure_document(), [("Content-Type", "application/json")])
            return self.reply(404)


def main():
    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # the program ended before it had read the answer

    server = Server((sys.argv[1], int(sys.argv[2])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    for line in sys.stdin:  # ends with the test
        words = line.split()
        with lock:
            if words[0] == "notice":
                state["ends"] = time.time() + float(words[1])
                state["version"] += 1
            elif words[0] == "other":
                state["other"] = True
            elif words[0] == "forget":
                state["tokens"].clear()
            elif words[0] in ("silent", "answer"):
                state["silent"] = words[0] == "silent"
            lock.notify_all()
        print(json.dumps({"refused": state["refused"]}), flush=True)


main()
