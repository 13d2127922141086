"""The tests' own tools: an implementation that accepts everything would prove nothing."""

import gc
import json
import os
import select
import shutil
import socket
import ssl
import struct
import warnings
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap

from cp3py import auditlog, merkle
from cp3py.client import start_tls
from cp3py.messages import Message, MessageError, decode, request
from cp3py.note import Note, NoteError, split
from cp3py.unwrap import unwrap
from harness import state
from harness.once import once
from harness.procs import run
from harness.programs import TOP, program
from harness.tekd import Tekd

DATA = bytes.fromhex("1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5")
TEK = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
KEK = bytes(range(16))


def test_unwrap_agrees_with_the_published_vectors():
    """RFC 3394, RFC 5649 and NIST's, those that are to fail included."""
    with open(os.path.join(TOP, "tests", "data", "vectors", "kw_vectors.json"),
              encoding="utf-8") as f:
        vectors = json.load(f)
    cases = vectors["vectors"] if isinstance(vectors, dict) else vectors
    tried = 0
    for v in cases:
        kek, ct = bytes.fromhex(v["kek"]), bytes.fromhex(v["ct"])
        wrap = {"KW": "aes-kw", "KWP": "aes-kwp"}[v["mode"]]
        if v["result"] in ("valid", "pass", True, "ok", "PASS"):
            assert unwrap(wrap, kek, ct) == bytes.fromhex(v["pt"]), v["name"]
        else:
            with pytest.raises((InvalidUnwrap, ValueError)):
                unwrap(wrap, kek, ct)
        tried += 1
    assert tried >= 100
    assert unwrap("aes-kw", KEK, DATA) == TEK  # RFC 3394 section 4.1


def test_tree_grows_to_the_root_of_the_definition():
    leaves = [str(n).encode() for n in range(70)]
    tree = merkle.Tree()
    for n in range(len(leaves) + 1):
        assert tree.root() == merkle.root_by_definition(leaves[:n])
        if n < len(leaves):
            tree.append(leaves[n])
    assert merkle.Tree().root() == sha256(b"").digest()


def test_consistency_proofs_are_those_of_the_definition():
    """All pairs; the digest over all of them is what tests/unit/test_merkle.c is compared with."""
    leaves = [bytes([n]) for n in range(70)]
    roots = [merkle.root_by_definition(leaves[:n]) for n in range(len(leaves) + 1)]
    digest = sha256()
    for to in range(1, len(leaves) + 1):
        for start in range(1, to + 1):
            proof = merkle.consistency_by_definition(start, leaves[:to])
            old, new = (start, roots[start]), (to, roots[to])
            assert merkle.is_consistent(old, new, proof)
            for bad in ([proof[:-1], proof[1:], [roots[1]] + proof[1:]] if proof else [[roots[1]]]):
                assert bad == proof or not merkle.is_consistent(old, new, bad), (start, to)
            assert start == to or not merkle.is_consistent((start, roots[start - 1]), new, proof)
            digest.update(b"".join(proof))
    assert digest.hexdigest() == "7d7f91c46c0471e0890af1e7108b5855bc82229ed3b66e6c07b263b45a5f17ea"


FULL = Message(tag=2, mid="m", content="urn:x", destination="bsa-1", source="bsm", status=0,
               data=DATA, time="2026-01-01T00:00:00Z", version=1,
               key_info={"keyID": "8ef7f1a0-0000-4000-8000-000000000001", "kekID": "bsa-1/2",
                         "wrap": "aes-kw", "bits": 128})


@pytest.mark.parametrize("media", ["xml", "json"])
def test_messages_come_back_as_they_were_written(media):
    for m in (FULL, FULL.but(status=1, data=None, key_info=None), request("m", "c", "s"),
              Message(tag=2, mid="m", status=1), Message(tag=4, mid="m", status=0)):
        assert decode(media, m.encode(media)) == m
    assert decode(media, Message(tag=2, mid="m", status=0, data=DATA).encode(media)).form == \
        "efficient"


@pytest.mark.parametrize("old, new", [
    (b"<Tag>2</Tag>", b""), (b"<Tag>2</Tag>", b"<Tag>3</Tag>"), (b"<Status>0", b"<Status>1"),
    (b"<Status>0</Status>", b""), (b"1FA6", b"1fa6"), (b"<MessageID>m<", b"<MessageID> m<"),
    (b"<Version>1</Version><MessageID>m</MessageID>", b"<MessageID>m</MessageID><Version>1</Version>"),
    (b"<ContentID>urn:x</ContentID>", b""), (b"cp3:1.0", b"cp3:2.0"), (b"00:00Z", b"00:00+00:00"),
    (b"<Tag>2</Tag>", b"<Tag>2</Tag><Tag>2</Tag>"), (b"<Tag>2</Tag>", b"<What/><Tag>2</Tag>"),
    (b"aes-kw", b"rot13"), (b"</KeyRequestResponse>", b"")])
def test_xml_that_a_server_may_not_write_is_refused(old, new):
    octets = FULL.encode("xml")
    assert old in octets
    with pytest.raises((MessageError, SyntaxError)):
        decode("xml", octets.replace(old, new, 1))


@pytest.mark.parametrize("old, new", [
    (b'"Tag": 2', b'"Tag": "2"'), (b'"Tag": 2', b'"Tag": 2, "Tag": 2'), (b"1FA6", b"1fa6"),
    (b'"Status": 0', b'"Status": 0.0'), (b'"Status": 0', b'"Status": true'),
    (b'"Version": 1, ', b""), (b'"bits": 128', b'"bits": "128"'), (b'"Tag": 2', b'"What": 2'),
    (b'"ContentID": "urn:x", ', b"")])
def test_json_that_a_server_may_not_write_is_refused(old, new):
    octets = FULL.encode("json")
    assert old in octets
    if old == b'"Version": 1, ':
        octets = octets.replace(b'"Tag": 2, ', b"", 1)
    with pytest.raises(MessageError):
        decode("json", octets.replace(old, new, 1))


def test_a_connection_that_is_reset_before_its_handshake_leaves_no_socket():
    with socket.create_server(("127.0.0.1", 0)) as listener, \
            warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        raw = socket.create_connection(listener.getsockname(), timeout=10)
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        poll = select.poll()
        poll.register(raw, select.POLLIN)
        assert poll.poll(10000)
        with pytest.raises(OSError):
            start_tls(ssl.create_default_context(), raw, "localhost", None)
        gc.collect()
    assert [str(w.message) for w in leaked] == []


# ---- the verifier against forged exports ----------------------------------------------------------

@pytest.fixture(scope="module")
def exported(template, enrolled):
    """An export of a log with a bit of everything, and its key."""
    return once("exported", lambda folder: make_export(folder, template, enrolled))


def make_export(folder, template, enrolled):
    tekd = Tekd(state.copy(enrolled, folder), template)
    try:
        tekd.start()
        for n in range(6):
            assert tekd.ask(f"m-{n % 4}", f"urn:{n % 4}", f"bsa-{n % 2 + 1}").status == 200
        tekd.restart()
        tekd.audit()
        for n in range(3):
            assert tekd.ask(f"r-{n}", "urn:0", "bsa-1").status == 200
        export = tekd.export()
        tekd.stop()
        return export, tekd.path("checkpoint.pem")
    finally:
        tekd.close()


def judge(folder, key):
    """(ours, theirs): whether each verifier takes the export."""
    try:
        auditlog.Log(folder, key)
        ours = True
    except (auditlog.AuditError, NoteError, ValueError, KeyError):
        ours = False
    theirs = run([program("tek-audit"), "verify", folder, "--key", key, "--first"], check=False)
    assert theirs.returncode in (0, 1), theirs
    return ours, theirs.returncode == 0


def rewrite(folder, name, change):
    """Changes a file of the export and its line in SHA256SUMS."""
    path = os.path.join(folder, name)
    with open(path, "rb") as f:
        before = f.read()
    after = change(before)
    assert after != before
    with open(path, "wb") as f:
        f.write(after)
    sums = os.path.join(folder, "SHA256SUMS")
    with open(sums, encoding="ascii") as f:
        text = f.read()
    with open(sums, "w", encoding="ascii") as f:
        f.write(text.replace(sha256(before).hexdigest(), sha256(after).hexdigest()))


def lines(change):
    """A change of the list of lines."""
    def of(octets):
        all_lines = octets.split(b"\n")[:-1]
        return b"\n".join(change(all_lines)) + b"\n"
    return of


def swap(a):
    a[5], a[6] = a[6], a[5]
    return a


def refer_elsewhere(a):
    at = next(i for i, line in enumerate(a) if b'"ev":"answer.sent"' in line)
    a[at] = a[at].replace(b'"ref":"1/', b'"ref":"1/1')
    return a


FORGERIES = {
    "octet changed": ("audit.jsonl", lambda o: o.replace(b"urn:0", b"urn:9", 1)),
    "record left out": ("audit.jsonl", lines(lambda a: a[:7] + a[8:])),
    "last record left out": ("audit.jsonl", lines(lambda a: a[:-1])),
    "record repeated": ("audit.jsonl", lines(lambda a: a[:7] + [a[6]] + a[7:])),
    "record added": ("audit.jsonl", lines(lambda a: a + [a[-1]])),
    "records swapped": ("audit.jsonl", lines(swap)),
    "another spelling": ("audit.jsonl", lambda o: o.replace(b'"v":1}', b'"v": 1}', 1)),
    "empty line": ("audit.jsonl", lambda o: o + b"\n"),
    "no line end": ("audit.jsonl", lambda o: o[:-1]),
    "empty": ("audit.jsonl", lambda o: b""),
    "reference elsewhere": ("audit.jsonl", lines(refer_elsewhere)),
    "checkpoint of another size": ("checkpoint", lines(
        lambda a: [a[0], str(int(a[1]) - 1).encode()] + a[2:])),
    "signature changed": ("checkpoint", lambda o: o[:-12] + bytes([o[-12] ^ 1]) + o[-11:]),
    "signature left out": ("checkpoint", lines(lambda a: a[:4])),
    "checkpoint of another origin": ("checkpoint", lambda o: o.replace(b"/audit/1", b"/audit/2")),
    "checkpoints left out": ("checkpoints.txt", lambda o: b""),
    "all checkpoints but the last left out": ("checkpoints.txt",
                                              lambda o: split(o)[-1].octets + b"\n"),
    "an older checkpoint changed": ("checkpoints.txt", lambda o: o[:60] + b"A" + o[61:]),
}


def test_both_verifiers_take_the_true_export(exported):
    assert judge(*exported) == (True, True)


@pytest.mark.parametrize("forgery", sorted(FORGERIES))
def test_both_verifiers_refuse_forgeries(exported, folder, forgery):
    copy = os.path.join(folder, "forged")
    shutil.copytree(exported[0], copy)
    rewrite(copy, *FORGERIES[forgery])
    assert judge(copy, exported[1]) == (False, False)


def test_both_verifiers_refuse_another_key_and_files_that_do_not_match(exported, folder):
    from cryptography.hazmat.primitives import serialization
    from harness.pki import new_key
    other = os.path.join(folder, "other.pem")
    with open(other, "wb") as f:
        f.write(new_key().public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    assert judge(exported[0], other) == (False, False)
    copy = os.path.join(folder, "forged")
    shutil.copytree(exported[0], copy)
    with open(os.path.join(copy, "audit.jsonl"), "ab") as f:
        f.write(b" ")
    assert judge(copy, exported[1]) == (False, False)


def test_truncation_to_an_older_checkpoint_shows_by_the_note_one_has_seen(exported, folder):
    """An auditor's memory: a log that is whole in itself, but older than what he saw."""
    copy = os.path.join(folder, "older")
    shutil.copytree(exported[0], copy)
    with open(os.path.join(copy, "checkpoints.txt"), "rb") as f:
        notes = split(f.read())
    seen, older = notes[-1], notes[-3]
    rewrite(copy, "checkpoint", lambda o: older.octets)
    rewrite(copy, "checkpoints.txt", lambda o: b"".join(n.octets + b"\n" for n in notes[:-2]))
    rewrite(copy, "audit.jsonl", lines(lambda a: a[:older.size]))
    assert judge(copy, exported[1]) == (True, True)
    with pytest.raises(auditlog.AuditError):
        auditlog.Log(copy, exported[1], since=seen)
    note = os.path.join(folder, "seen")
    with open(note, "wb") as f:
        f.write(seen.octets)
    done = run([program("tek-audit"), "verify", copy, "--key", exported[1], "--since", note],
               check=False)
    assert done.returncode == 1, done
    assert auditlog.Log(exported[0], exported[1], since=seen)


def test_notes_have_one_form():
    text = b"o/tekd/audit/1\n5\n" + b"A" * 43 + b"=\n\n\xe2\x80\x94 o/tekd/audit/1 AAAAAAAA\n"
    assert Note(text).size == 5
    for old, new in [(b"\n5\n", b"\n05\n"), (b"\n5\n", b"\n-5\n"), (b"A=\n", b"B=\n"),
                     (b"\n\n", b"\n"), (b" o/tekd", b" p/tekd"), (b"\xe2\x80\x94", b"-"),
                     (b"\n5\n", b"\n5\nmore\n")]:
        assert old in text
        with pytest.raises((NoteError, ValueError)):
            Note(text.replace(old, new, 1))
