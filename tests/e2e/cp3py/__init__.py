"""OMA BCAST CP-3 from the outside: messages, key unwrapping, HTTPS, the audit log.

Written from the protocol's description alone; shares no code with tekd, so that agreeing with it
means something.
"""
