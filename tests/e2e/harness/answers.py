"""What every answer of tekd has to be, whatever it says."""

import json

REASONS = set("malformed unsupported-version wrong-destination wrong-source unknown-content "
              "not-entitled duplicate-message-id unknown-message wrong-content already-confirmed "
              "no-period key-gone busy internal".split())
PROBLEM = "application/problem+json"


def checked(r):
    """The answer itself, after what holds for all answers of tekd's own."""
    assert r.header("cache-control") == "no-store", r
    reason = r.header("cp3-reason")
    assert reason is None or reason in REASONS, r
    assert (r.header("retry-after") is not None) == (r.status == 503), r
    assert (r.header("allow") is not None) == (r.status == 405), r
    if r.header("content-type") == PROBLEM:
        assert json.loads(r.body)["status"] == r.status, r
    return r


def given(r, request, bsa, media="xml"):
    """A key: Tag 2, Status 0, an answer to this request, in the form of this BSA."""
    checked(r)
    assert r.status == 200 and r.header("cp3-reason") is None, r
    assert r.media == media, r
    m = r.message()
    assert (m.tag, m.status, m.mid) == (2, 0, request.mid), m
    if "efficient" in bsa.enrol:
        assert m.form == "efficient", m
        return m
    assert m.form == "full" and m.version == 1 and m.time, m
    assert (m.content, m.source, m.destination) == \
        (request.content, request.destination, request.source), m
    if "--no-key-info" in bsa.enrol:
        assert m.key_info is None, m
    else:
        assert m.key_info["wrap"] == bsa.wrap and m.key_info["kekID"].startswith(bsa.name + "/"), m
    return m


def refused(r, request, reason, status=200, media="xml", form="full"):
    """Tag 2, Status 1, no Data, and the reason in the header."""
    checked(r)
    assert (r.status, r.header("cp3-reason")) == (status, reason), r
    assert r.media == media, r
    m = r.message()
    assert (m.tag, m.status, m.mid, m.data, m.key_info) == (2, 1, request.mid, None, None), m
    assert m.form == form, m
    if form == "full":
        assert (m.content, m.source, m.destination) == \
            (request.content, request.destination, request.source), m
    return m


def problem(r, status, reason=None):
    """application/problem+json; the document."""
    checked(r)
    assert (r.status, r.header("content-type")) == (status, PROBLEM), r
    assert r.header("cp3-reason") == reason, r
    return json.loads(r.body)
