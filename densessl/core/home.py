"""``~`` as the home folder. Needs nothing but Python itself, as ``densessl doctor`` does."""

import os
import re

HOME = re.compile(r"(?:^|(?<=[=:]))~[^/:=\s]*(?=[/:]|$)")


def expand(text: str) -> str:
    """``text`` with ``~`` (``~user``) as the home folder where a shell would see it in an
    assignment: at the start, and behind ``=`` or ``:``.
    """
    return HOME.sub(lambda found: os.path.expanduser(found[0]), text)
