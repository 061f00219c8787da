"""`--fetch-urls`: files that clients name by their address. Never from a private network, whatever a name or a redirection points at."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import h11

from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server.service import Share

REDIRECTS = 3
PIECE = 64 << 10


def is_public(address: str) -> bool:
    """Whether an IPv4 address is one of the internet's."""
    found = ipaddress.IPv4Address(address)
    return found.is_global and not found.is_multicast


async def fetch(url: str, most: int, share: Share, *, allowed: Callable[[str], bool] = is_public) -> bytes:
    """The file at an address, of at most `most` bytes, counted in `share`. Raises Problem: 400 for an address that is not fetched or has no
    file, 413 for too large a one, 503.
    """
    try:
        for _ in range(REDIRECTS + 1):
            answer = await _get(urlsplit(url), most, share, allowed)
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
    except (OSError, ValueError, h11.ProtocolError) as error:
        raise _refused(f"it cannot be fetched: {type(error).__name__}") from None
    raise _refused(f"more than {REDIRECTS} redirections")


async def _get(url: SplitResult, most: int, share: Share, allowed: Callable[[str], bool]) -> bytes | str:
    """The content, or where it is now."""
    if url.scheme not in ("http", "https") or not url.hostname:
        raise _refused("only http and https are fetched")
    encrypted = url.scheme == "https"
    port = url.port or (443 if encrypted else 80)
    # IPv4 alone: some IPv6 addresses are a way to private IPv4 ones.
    found = await asyncio.get_running_loop().getaddrinfo(url.hostname, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
    address = str(found[0][4][0])
    if not allowed(address):
        raise _refused("it is not on the public internet")
    # To the address that was looked at: the name could point elsewhere the next time.
    context, name = (ssl.create_default_context(), url.hostname) if encrypted else (None, None)
    reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    try:
        client = h11.Connection(h11.CLIENT)
        target = quote(url.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{quote(url.query, safe='/%?:@!$&()*+,;=~')}" if url.query else "")
        headers = [("Host", url.netloc.rpartition("@")[2]), ("Connection", "close"), ("User-Agent", "threadsafe-ocr")]
        writer.write(
            (client.send(h11.Request(method="GET", target=target, headers=headers)) or b"") + (client.send(h11.EndOfMessage()) or b"")
        )
        await writer.drain()
        content = bytearray()
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                client.receive_data(await reader.read(PIECE))
            elif isinstance(event, h11.Response) and event.status_code != 200:
                location = dict(event.headers).get(b"location")
                if location and event.status_code in (301, 302, 303, 307, 308):
                    return location.decode()
                raise _refused(f"it answers {event.status_code}")
            elif isinstance(event, h11.Data):
                content += event.data
                if len(content) > most:
                    raise Problem(413, "UploadTooLarge", f"the file is larger than {most} bytes, the most that this server takes")
                share.resize(len(content))
        return bytes(content)
    finally:
        writer.close()


def _refused(why: str) -> Problem:
    return Problem(400, "UrlNotFetched", f"the address of the file: {why}; send the file itself, as base64")
