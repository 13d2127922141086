"""Prints "PASSED FAILED SKIPPED" of a JUnit report as ctest and pytest write it.

For ctest a test that skipped itself and one that could not even start are both "notrun"; the
second is a failure here.
Fails if the file is no report: whoever wrote it has crashed.
"""

import sys
import xml.etree.ElementTree as ElementTree


def verdict(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    if case.get("status") == "fail":
        return "failed"
    skipped = case.find("skipped")
    if skipped is None:
        return "passed"
    by_itself = case.get("status") != "notrun" or skipped.get("message", "").startswith("SKIP_")
    return "skipped" if by_itself else "failed"


def main():
    cases = ElementTree.parse(sys.argv[1]).getroot().iter("testcase")
    verdicts = [verdict(case) for case in cases]
    print(*(verdicts.count(v) for v in ("passed", "failed", "skipped")))


main()
