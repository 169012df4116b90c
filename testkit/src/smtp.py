"""An SMTP server that does as it is told. See smtp.rs."""

import argparse
import asyncio
import email
import email.policy
import pathlib
import ssl

from aiosmtpd.smtp import SMTP, AuthResult

parser = argparse.ArgumentParser()
parser.add_argument("--into", type=pathlib.Path, required=True)
parser.add_argument("--tls", choices=["never", "offered", "at-once"], required=True)
parser.add_argument("--certificate")
parser.add_argument("--key")
parser.add_argument("--login", nargs=2)
parser.add_argument("--answer", action="append", default=[])
parser.add_argument("--silent", action="store_true")
options = parser.parse_args()


class Handler:
    count = 0

    async def handle_DATA(self, server, session, envelope):
        if options.answer:
            return options.answer.pop(0)
        self.count += 1
        name = f"{self.count:06}"
        mail = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        body = mail.get_body(("plain",))
        parts = {
            "to": "\n".join(envelope.rcpt_tos),
            "subject": mail["subject"] or "",
            "text": body.get_content() if body else "",
            "login": session.auth_data.decode() if session.auth_data else "",
            "tls": "yes" if session.ssl else "",
            # Last: whoever sees it finds the others.
            "eml": envelope.original_content.decode("utf-8", "replace"),
        }
        for part, text in parts.items():
            unfinished = options.into / f".{name}.{part}"
            unfinished.write_text(text, encoding="utf-8", newline="")
            unfinished.rename(options.into / f"{name}.{part}")
        return "250 2.0.0 taken"


def authenticate(server, session, envelope, mechanism, data):
    given = [data.login.decode(), data.password.decode()]
    if given == options.login:
        return AuthResult(success=True, auth_data=data.login)
    return AuthResult(success=False, handled=False)


async def listen_in_silence(reader, writer):
    while await reader.read(1024):
        pass


async def main():
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    handler = Handler()

    def session():
        return SMTP(
            handler,
            hostname="mail.test",
            enable_SMTPUTF8=False,
            tls_context=context if options.tls == "offered" else None,
            authenticator=authenticate,
            auth_required=options.login is not None,
            # It knows nothing of TLS that was there before it.
            auth_require_tls=options.tls == "offered",
        )

    loop = asyncio.get_running_loop()
    if options.silent:
        server = await asyncio.start_server(listen_in_silence, "127.0.0.1", 0)
    else:
        at_once = context if options.tls == "at-once" else None
        server = await loop.create_server(session, "127.0.0.1", 0, ssl=at_once)
    print("listening on", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
