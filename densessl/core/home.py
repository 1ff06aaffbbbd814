"""``~`` as the home folder, and the user's cache.

Needs nothing but Python itself, as ``densessl doctor`` does.
"""

import os
import re

HOME = re.compile(r"(?:^|(?<=[=:]))~[^/:=\s]*(?=[/:]|$)")


def expand(text: str) -> str:
    """``text`` with ``~`` (``~user``) as the home folder where a shell would see it in an
    assignment: at the start, and behind ``=`` or ``:``.
    """
    return HOME.sub(lambda found: os.path.expanduser(found[0]), text)


def cache() -> str:
    """The folder for what is kept of this user's runs; begins with ``~`` where there is no home."""
    above = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(above, "densessl")
