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


def split(n):
    """The largest power of two below n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def root_by_definition(leaves):
    """MTH of section 2.1, recursively: what Tree is tested against."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = split(len(leaves))
    return node_hash(root_by_definition(leaves[:k]), root_by_definition(leaves[k:]))


def consistency_by_definition(m, leaves, whole=True):
    """SUBPROOF of section 2.1.2, recursively: from the first m leaves to all of them."""
    if m == len(leaves):
        return [] if whole else [root_by_definition(leaves)]
    k = split(len(leaves))
    if m <= k:
        return (consistency_by_definition(m, leaves[:k], whole)
                + [root_by_definition(leaves[k:])])
    return (consistency_by_definition(m - k, leaves[k:], False)
            + [root_by_definition(leaves[:k])])


def is_consistent(old, new, proof):
    """Whether a proof leads from one (size, root) to another; RFC 9162 section 2.1.4.2."""
    (first, first_root), (second, second_root) = old, new
    if first == second:
        return first_root == second_root and not proof
    if not 0 < first < second or not proof:
        return False
    if first & (first - 1) == 0:
        proof = [first_root] + proof
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = proof[0]
    for c in proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == first_root and sr == second_root
