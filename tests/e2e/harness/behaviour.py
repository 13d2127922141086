"""What a BSA can do with a Key Delivery: the right thing, and everything else.

Each is a coroutine play(bsa, exchange, delivery) under a name; a BSA's script is a list of names.
"""

import asyncio

from cp3py.messages import MEDIA, Message, confirmation

HUGE = 10 << 20
HTML = b"<!DOCTYPE html>\n<html><head><title>It works!</title></head><body>OK</body></html>\n"

TABLE = {}


def behaviour(name):
    def register(play):
        assert name not in TABLE
        TABLE[name] = play
        return play
    return register


# ---- confirmations ---------------------------------------------------------------------------------

def says(status, form=None):
    """The confirmation is the body of the answer."""
    async def play(bsa, x, m):
        await bsa.say(x, confirmation(m, status, form or bsa.form))
    return play


def posts(*statuses, answer=202, form=None):
    """The answer has no body; confirmations are POSTed afterwards, one after the other."""
    async def play(bsa, x, m):
        await bsa.tell(x, m, answer)
        bsa.post_later([confirmation(m, s, form or bsa.form) for s in statuses])
    return play


def says_and_posts(status, *statuses):
    async def play(bsa, x, m):
        await bsa.say(x, confirmation(m, status, bsa.form))
        bsa.post_later([confirmation(m, s, bsa.form) for s in statuses])
    return play


TABLE.update({
    "confirm": says(0),
    "confirm-full": says(0, "full"),
    "confirm-efficient": says(0, "efficient"),
    "reject": says(1),
    "later": posts(0),
    "later-204": posts(0, answer=204),
    "later-efficient": posts(0, form="efficient"),
    "later-reject": posts(1),
    "twice": says_and_posts(0, 0),
    "later-twice": posts(0, 0),
    "confirm-then-reject": says_and_posts(0, 1),
    "taken": posts(),
    "taken-204": posts(answer=204),
})


@behaviour("confirm-other-media")
async def confirm_other_media(bsa, x, m):
    await bsa.say(x, confirmation(m, 0, bsa.form), "json" if bsa.media == "xml" else "xml")


# ---- confirmations that are none -------------------------------------------------------------------

WRONG = {
    "mid": {"mid": "00000000-0000-7000-8000-000000000000"},
    "content": {"content": "urn:x:another"},
    "source": {"source": "p-another"},
    "destination": {"destination": "bsm.another.example"},
}


def _register_wrong(what, changes):
    async def say(bsa, x, m):
        await bsa.say(x, confirmation(m).but(**changes))

    async def post(bsa, x, m):
        await bsa.tell(x, m, 202)
        bsa.post_later([confirmation(m).but(**changes)])
    TABLE[f"wrong-{what}"] = say
    TABLE[f"wrong-{what}-later"] = post


for _what, _changes in WRONG.items():
    _register_wrong(_what, _changes)


def says_octets(make, status=200, content_type=None):
    """make(bsa, delivery) gives the body."""
    async def play(bsa, x, m):
        await bsa.tell(x, m, status, make(bsa, m), content_type or MEDIA[bsa.media])
    return play


def _half_full(bsa, m):
    return confirmation(m).but(source=None).encode(bsa.media)


def _other_tag(bsa, m):
    return Message(tag=2, mid=m.mid, status=1).encode(bsa.media)


TABLE.update({
    "status-2": says_octets(lambda bsa, m: confirmation(m, 2).encode(bsa.media)),
    "broken": says_octets(lambda bsa, m: confirmation(m).encode(bsa.media)[:-7]),
    "half-full": says_octets(_half_full),
    "other-tag": says_octets(_other_tag),
    "other-type": says_octets(lambda bsa, m: confirmation(m).encode(bsa.media),
                              content_type="text/plain"),
    "doctype": says_octets(lambda bsa, m: b"<!DOCTYPE x [<!ENTITY y 'z'>]>" +
                           confirmation(m).encode("xml").split(b"?>", 1)[1],
                           content_type=MEDIA["xml"]),
    "empty": says_octets(lambda bsa, m: b""),
    "html": says_octets(lambda bsa, m: HTML, content_type="text/html"),
    "500": says_octets(lambda bsa, m: b"oops\n", 500, "text/plain"),
    "503": says_octets(lambda bsa, m: b"", 503),
    "404": says_octets(lambda bsa, m: HTML, 404, "text/html"),
    "confirm-in-500": says_octets(lambda bsa, m: confirmation(m).encode(bsa.media), 500),
    "confirm-in-202": says_octets(lambda bsa, m: confirmation(m).encode(bsa.media), 202),
})


# ---- HTTP and connections --------------------------------------------------------------------------

@behaviour("huge")
async def huge(bsa, x, m):
    """Ten megabytes, and a confirmation at their end."""
    body = confirmation(m).encode(bsa.media)
    await bsa.tell(x, m, 200, b" " * (HUGE - len(body)) + body, MEDIA[bsa.media])


@behaviour("endless")
async def endless(bsa, x, m):
    """A header that never ends."""
    await bsa.noted(m, None)
    await x.send(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    while True:
        await x.send(b"x" * 65536)


@behaviour("drip")
async def drip(bsa, x, m):
    """One octet in half a second: each comes in time, the answer does not."""
    body = confirmation(m).encode(bsa.media)
    await bsa.noted(m, 200)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {MEDIA[bsa.media]}\r\nContent-Length: {len(body)}"
    await x.send(head.encode() + b"\r\n\r\n")
    for octet in body:
        await x.send(bytes([octet]))
        await asyncio.sleep(0.5)


@behaviour("redirect")
async def redirect(bsa, x, m):
    """To where a confirmation would be given."""
    await bsa.noted(m, 307)
    await x.answer(307, headers=[("Location", bsa.url + "/elsewhere")])


@behaviour("reset")
async def reset(bsa, x, m):
    await bsa.noted(m, None)
    x.abort()


@behaviour("close")
async def close(bsa, x, m):
    await bsa.noted(m, None)
    x.writer.close()


@behaviour("cut")
async def cut(bsa, x, m):
    """The answer ends in its middle."""
    body = confirmation(m).encode(bsa.media)
    await bsa.noted(m, 200)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {MEDIA[bsa.media]}\r\nContent-Length: {len(body)}"
    await x.send(head.encode() + b"\r\n\r\n" + body[:len(body) // 2])
    x.writer.close()


@behaviour("garbage")
async def garbage(bsa, x, m):
    await bsa.noted(m, None)
    await x.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    x.writer.close()


@behaviour("hang")
async def hang(bsa, x, m):
    await bsa.noted(m, None)
    await x.hang()
