"""``python -m densessl``: the command line, in every process that works for it."""

import os
import sys
from contextlib import suppress


def leave_working_folder() -> None:
    """Take off the import path what ``python -m`` put there: the working folder.

    (``PYTHONSAFEPATH`` would do so from Python 3.11 on, and for programs that are not ours.)
    """
    with suppress(OSError):  # the working folder is gone
        if sys.path and os.path.samefile(sys.path[0] or ".", "."):
            if os.path.isfile(os.path.join(sys.path[0], "densessl", "__main__.py")):
                return  # a checkout that is not installed
            del sys.path[0]


if __name__ == "__main__":
    leave_working_folder()  # before anything else is imported: a user's yaml.py is not ours
    import densessl

    sys.exit(densessl.main())
