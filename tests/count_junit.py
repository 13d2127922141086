"""Prints "PASSED FAILED SKIPPED" of a JUnit report as ctest and pytest write it.

A test that ctest could not start is written as "skipped" with the status "notrun": a failure here.
Fails if the file is no report: whoever wrote it has crashed.
"""

import sys
import xml.etree.ElementTree as ElementTree


def verdict(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    if case.get("status", "run") not in ("run", "disabled"):
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def main():
    cases = ElementTree.parse(sys.argv[1]).getroot().iter("testcase")
    verdicts = [verdict(case) for case in cases]
    print(*(verdicts.count(v) for v in ("passed", "failed", "skipped")))


main()
