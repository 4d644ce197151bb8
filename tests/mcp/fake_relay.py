"""`orchestrator mcp`, the real one, except that the owner it starts is the fake."""

import os
import sys
from pathlib import Path

from orchestrator.faces import relay, relay_start

relay_start.OWNER_COMMAND = (
    sys.executable,
    str(Path(__file__).with_name("fake_owner.py")),
    *(("--fail", os.environ["FAKE_FAILURE"]) if "FAKE_FAILURE" in os.environ else ()),
)
sys.argv.insert(1, "mcp")
relay.main()
