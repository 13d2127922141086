"""What costs seconds to make is made once for all test processes of a run."""

import fcntl
import os
import pickle
import shutil
import tempfile

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_SHARED = "TEKD_E2E_SHARED"  # the folder of what all processes share, for them


class _Pickler(pickle.Pickler):
    """Private keys go as PEM."""

    def reducer_override(self, obj):
        if not isinstance(obj, rsa.RSAPrivateKey):
            return NotImplemented
        pem = obj.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
        return serialization.load_pem_private_key, (pem, None)


def begin():
    """In the process that hands out the tests, before the others are started."""
    os.environ[_SHARED] = tempfile.mkdtemp(prefix="tekd-e2e-shared-")
    os.chmod(os.environ[_SHARED], 0o755)


def end():
    shutil.rmtree(os.environ.pop(_SHARED))


def once(name, make):
    """What make(folder) returned to the first process that asked for that name, or a copy of it.
    The folder, which make() makes, is there to be read, and lasts as long as the run."""
    folder = os.path.join(os.environ[_SHARED], name)
    made = folder + ".made"
    with open(folder + ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(made):
            shutil.rmtree(folder, ignore_errors=True)  # of one who failed
            result = make(folder)
            with open(made + ".new", "wb") as f:
                _Pickler(f).dump(result)
            os.rename(made + ".new", made)
        with open(made, "rb") as f:
            return pickle.load(f)
