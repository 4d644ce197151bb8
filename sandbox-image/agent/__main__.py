"""Entry of both programs: `python agent/__main__.py` is the supervisor, `python agent zygote FD` the zygote.

Run by its path and with -P, so that nothing of the environment decides what is imported: the folder above this one is
made the first entry of sys.path here. The supervisor, whose hello is waited for, is run as a file, since Python imports
runpy and what that needs for a directory; of a directory it also makes the first entry, which is not wanted.
"""

import os
import sys

if __name__ == "__main__":
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.path.dirname(folder), *(path for path in sys.path if path != folder)]
    if sys.argv[1:2] == ["zygote"]:
        from agent.zygote import main as zygote

        zygote(int(sys.argv[2]))
    else:
        from agent.start import main as supervisor

        supervisor()
