"""What asks a trial to stop."""

import signal

from densessl.core.stops import Stops


def stoppable() -> Stops:
    """The block of a trial: Ctrl-C and SIGTERM ask for a stop (``waiting.asked()``), which its loop
    answers at its next step; a second Ctrl-C unwinds it."""
    return Stops((signal.SIGINT, signal.SIGTERM), unwinds=True)
