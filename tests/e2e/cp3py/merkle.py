"""The Merkle tree of RFC 6962 section 2.1, as its definition has it."""

from hashlib import sha256


def leaf_hash(octets):
    return sha256(b"\x00" + octets).digest()


def node_hash(left, right):
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """Grows by leaves; gives the root at any size it passes.  A stack of (height, hash)."""

    def __init__(self):
        self.size = 0
        self.stack = []

    def append(self, octets):
        node = (0, leaf_hash(octets))
        while self.stack and self.stack[-1][0] == node[0]:
            node = (node[0] + 1, node_hash(self.stack.pop()[1], node[1]))
        self.stack.append(node)
        self.size += 1

    def root(self):
        if not self.stack:
            return sha256(b"").digest()
        root = self.stack[-1][1]
        for _, left in reversed(self.stack[:-1]):
            root = node_hash(left, root)
        return root


def root_by_definition(leaves):
    """MTH of section 2.1, recursively: what Tree is tested against."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(root_by_definition(leaves[:k]), root_by_definition(leaves[k:]))
