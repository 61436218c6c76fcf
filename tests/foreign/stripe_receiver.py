"""A receiver that trusts the official stripe package alone: it hands the raw body and our header to construct_event.

    SECRET=whsec_.. PYTHONPATH=folder with the package python3 stripe_receiver.py

Listens on a free port of loopback and prints it. For each POST it prints one line of JSON: what the package said, and the header and
body as they came, and answers 200 or 400. It ends when its standard input does.
"""

import base64
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import stripe


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        header = self.headers["KH-Webhook-Signature"]
        said = {"header": header, "body": base64.b64encode(raw).decode()}
        try:
            event = stripe.Webhook.construct_event(raw, header, os.environ["SECRET"])
            said |= {"ok": True, "id": event.id, "type": event.type}
        except stripe.SignatureVerificationError as error:
            said |= {"ok": False, "error": type(error).__name__, "message": str(error)}
        # In one piece: deliveries come at the same time.
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        self.send_response(200 if said["ok"] else 400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
