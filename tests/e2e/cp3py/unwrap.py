"""The BSA's side of Data: the clear TEK, from the wrap that was agreed at enrolment."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_unwrap_with_padding

_OAEP = {"rsa-oaep-sha1": hashes.SHA1, "rsa-oaep-sha256": hashes.SHA256}


def unwrap(wrap, kek, data):
    """kek: octets of an AES KEK, or an RSA private key.  Raises when Data is not for this KEK."""
    if wrap == "aes-kw":
        return aes_key_unwrap(kek, data)
    if wrap == "aes-kwp":
        return aes_key_unwrap_with_padding(kek, data)
    h = _OAEP[wrap]
    return kek.decrypt(data, padding.OAEP(padding.MGF1(h()), h(), None))
