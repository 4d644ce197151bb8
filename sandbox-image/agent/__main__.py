"""Entry of both programs: `python agent` is the supervisor, `python agent zygote FD` the zygote.

Run as a directory, so that nothing of the environment decides what is imported: the first entry of sys.path is this
folder, and is made its parent here.
"""

import os
import sys

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.argv[1:2] == ["zygote"]:
        from agent.zygote import main as zygote

        zygote(int(sys.argv[2]))
    else:
        from agent.start import main as supervisor

        supervisor()
