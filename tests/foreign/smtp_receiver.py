"""A mail server as others run them: takes mail from whoever logs in, and tells of it on stdout, an object a line.

smtp_receiver.py MODE CERTIFICATE KEY USER PASSWORD

MODE: tls, from the first byte; starttls; or clear, which offers neither encryption nor a login.
"""

import asyncio
import base64
import hmac
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

MODE, CERTIFICATE, KEY, USER, PASSWORD = sys.argv[1:]


def tell(what):
    print(json.dumps(what), flush=True)


def authenticate(server, session, envelope, mechanism, data):
    tell({"login": data.login.decode(), "mechanism": mechanism})
    same = data.login.decode() == USER and hmac.compare_digest(data.password.decode(), PASSWORD)
    if same:
        return AuthResult(success=True)
    # A careless one repeats the login, as it was sent.
    sent = base64.b64encode(b"\0" + data.login + b"\0" + data.password).decode()
    return AuthResult(success=False, handled=False, message=f"535 5.7.8 no login of {data.password.decode()} in {sent}")


class Box:
    async def handle_DATA(self, server, session, envelope):
        is_encrypted = server.transport.get_extra_info("sslcontext") is not None
        mail = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "text": envelope.content.decode()}
        tell({"mail": mail, "encrypted": is_encrypted, "authenticated": session.authenticated})
        return "250 taken"


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


def session():
    if MODE == "clear":
        return SMTP(Box(), hostname="receiver")
    login = {"authenticator": authenticate, "auth_required": True}
    if MODE == "tls":
        # The whole connection is encrypted, which aiosmtpd does not look at.
        return SMTP(Box(), hostname="receiver", auth_require_tls=False, **login)
    return SMTP(Box(), hostname="receiver", tls_context=tls_context(), require_starttls=True, **login)


async def main():
    context = tls_context() if MODE == "tls" else None
    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0, ssl=context)
    tell({"port": server.sockets[0].getsockname()[1]})
    await server.serve_forever()


asyncio.run(main())
