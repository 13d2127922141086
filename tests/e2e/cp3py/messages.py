"""The four messages of CP-3, as XML and as JSON.

`Message.encode()` writes what a BSA sends.  `decode()` takes what tekd wrote and is strict about it:
order of the table, namespaces, upper-case Data, no member twice, full or efficient and nothing
between; XML has to validate against the schemas too.
"""

import json
import os
import re
from dataclasses import dataclass, field, replace
from typing import Optional

from lxml import etree

NS = "urn:x-bcast:spcp:cp3:1.0"
EXT = "urn:x-bcast:spcp:cp3:ext:1.0"
ROOTS = {1: "KeyRequest", 2: "KeyRequestResponse", 3: "KeyDelivery", 4: "KeyDeliveryConfirmation"}
MEDIA = {"xml": "application/xml", "json": "application/json"}

# Name on the wire, attribute here, and what it is; in the order of the table.
FIELDS = (
    ("Tag", "tag", int),
    ("Version", "version", int),
    ("MessageID", "mid", str),
    ("ContentID", "content", str),
    ("Destination", "destination", str),
    ("Source", "source", str),
    ("Status", "status", int),
    ("Data", "data", bytes),
    ("Time", "time", str),
)
EFFICIENT = ("Tag", "MessageID", "Status", "Data")
KEY_INFO = {"keyID": str, "kekID": str, "wrap": str, "bits": int, "period": int,
            "notBefore": str, "notAfter": str}
RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


class MessageError(Exception):
    """The octets are not what CP-3 lets a server write."""


@dataclass(frozen=True)
class Message:
    tag: int
    mid: Optional[str] = None
    content: Optional[str] = None
    destination: Optional[str] = None
    source: Optional[str] = None
    status: Optional[int] = None
    data: Optional[bytes] = None
    time: Optional[str] = None
    version: Optional[int] = None
    key_info: Optional[dict] = None
    period: Optional[int] = None
    form: str = field(default="full", compare=False)

    def encode(self, media="xml"):
        return _to_xml(self) if media == "xml" else _to_json(self)

    def but(self, **changes):
        return replace(self, **changes)


def request(mid, content, source, destination="bsm.example.net", **more):
    return Message(tag=1, mid=mid, content=content, source=source, destination=destination, **more)


def confirmation(delivery, status=0, form="full"):
    """What the BSA says to a Key Delivery; Source and Destination change places."""
    m = Message(tag=4, mid=delivery.mid, status=status, form=form)
    if form == "efficient":
        return m
    return m.but(content=delivery.content, source=delivery.destination,
                 destination=delivery.source)


# ---- writing --------------------------------------------------------------------------------------

def _present(m):
    for name, attribute, kind in FIELDS:
        value = getattr(m, attribute)
        if value is not None:
            yield name, kind, value


def _to_xml(m):
    root = etree.Element(f"{{{NS}}}{ROOTS[m.tag]}", nsmap={None: NS, "x": EXT})
    for name, kind, value in _present(m):
        text = value.hex().upper() if kind is bytes else str(value)
        etree.SubElement(root, f"{{{NS}}}{name}").text = text
    if m.period is not None:
        etree.SubElement(root, f"{{{EXT}}}Period", index=str(m.period))
    if m.key_info is not None:
        etree.SubElement(root, f"{{{EXT}}}KeyInfo",
                         **{k: str(v) for k, v in m.key_info.items()})
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _to_json(m):
    o = {name: value.hex().upper() if kind is bytes else value
         for name, kind, value in _present(m)}
    if m.period is not None:
        o["Period"] = {"index": m.period}
    if m.key_info is not None:
        o["KeyInfo"] = m.key_info
    return json.dumps(o, ensure_ascii=False).encode()


# ---- reading --------------------------------------------------------------------------------------

_schema = None


def _schemas():
    global _schema
    if _schema is None:
        top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
            os.path.abspath(__file__)))))
        folder = os.path.join(top, "lib", "cp3", "xsd")
        _schema = [etree.XMLSchema(file=os.path.join(folder, name))
                   for name in ("cp3.xsd", "cp3-ext.xsd")]
    return _schema


def _take(name, kind, text):
    if kind is int:
        if not re.fullmatch(r"0|[1-9][0-9]*", text):
            raise MessageError(f"{name}: {text!r} is not how an integer is written")
        return int(text)
    if kind is bytes:
        if not re.fullmatch(r"([0-9A-F]{2}){24,512}", text):
            raise MessageError(f"{name}: not 24..512 octets in upper-case hex: {text!r}")
        return bytes.fromhex(text)
    if name == "Time" and not RFC3339_UTC.fullmatch(text):
        raise MessageError(f"Time: not RFC 3339 in UTC: {text!r}")
    if not text or text != text.strip():
        raise MessageError(f"{name}: {text!r}")
    return text


def _from_xml(octets):
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    root = etree.fromstring(octets, parser)
    found, key_info = {}, None
    names = [name for name, _, _ in FIELDS]
    last = -1
    if etree.QName(root).namespace != NS or root.attrib:
        raise MessageError(f"root element {root.tag}, attributes {dict(root.attrib)}")
    for e in root:
        q = etree.QName(e)
        if q.namespace == EXT and q.localname == "KeyInfo" and key_info is None:
            key_info = {k: _take(k, KEY_INFO[k], v) for k, v in e.attrib.items()}
            last = len(names)
            continue
        if q.namespace != NS or q.localname not in names or e.attrib or len(e):
            raise MessageError(f"element {e.tag}")
        at = names.index(q.localname)
        if at <= last:
            raise MessageError(f"{q.localname}: repeated, or not in the order of the table")
        last = at
        found[q.localname] = _take(q.localname, FIELDS[at][2], e.text or "")
    if not _schemas()[0].validate(root):
        raise MessageError(f"cp3.xsd: {_schemas()[0].error_log.last_error}")
    for e in root.iter(f"{{{EXT}}}*"):
        if not _schemas()[1].validate(etree.ElementTree(e)):
            raise MessageError(f"cp3-ext.xsd: {_schemas()[1].error_log.last_error}")
    if etree.QName(root).localname != ROOTS.get(found.get("Tag")):
        raise MessageError(f"Tag {found.get('Tag')} in {root.tag}")
    return found, key_info


def _no_twice(pairs):
    if len({k for k, _ in pairs}) != len(pairs):
        raise MessageError(f"a member twice: {[k for k, _ in pairs]}")
    return dict(pairs)


def _from_json(octets):
    o = json.loads(octets.decode("utf-8"), object_pairs_hook=_no_twice)
    kinds = {name: kind for name, _, kind in FIELDS}
    found, key_info = {}, None
    for name, value in o.items():
        if name == "KeyInfo":
            key_info = value
            if any(type(v) is not KEY_INFO.get(k) for k, v in value.items()):
                raise MessageError(f"KeyInfo {value}")
        elif name not in kinds:
            raise MessageError(f"member {name}")
        elif kinds[name] is int:
            if type(value) is not int:
                raise MessageError(f"{name}: {value!r}")
            found[name] = value
        else:
            found[name] = _take(name, kinds[name], value)
    order = [name for name, _, _ in FIELDS if name in found]
    if [name for name in o if name != "KeyInfo"] != order:
        raise MessageError(f"not in the order of the table: {list(o)}")
    return found, key_info


def _form(found, key_info):
    """Full has the three of the session; efficient is exactly its four fields."""
    session = {"ContentID", "Destination", "Source"} & set(found)
    if len(session) == 3:
        return "full"
    if session or key_info is not None or not set(found) <= set(EFFICIENT):
        raise MessageError(f"neither full nor efficient: {sorted(found)}")
    return "efficient"


def decode(media, octets):
    """A message that tekd wrote."""
    found, key_info = _from_xml(octets) if media == "xml" else _from_json(octets)
    missing = {"Tag", "MessageID"} - set(found)
    if missing:
        raise MessageError(f"without {missing}")
    form = _form(found, key_info)
    tag, status = found["Tag"], found.get("Status")
    if tag == 3 and (form != "full" or status is not None or "Data" not in found):
        raise MessageError(f"Tag 3 with {sorted(found)}")
    if tag in (2, 4) and status not in (0, 1):
        raise MessageError(f"Status {status}")
    if tag == 2 and (status == 0) != ("Data" in found):
        raise MessageError(f"Status {status} and Data {found.get('Data')}")
    return Message(key_info=key_info, form=form,
                   **{attribute: found[name] for name, attribute, _ in FIELDS if name in found})
