"""The application of the server processes that `gateway serve` starts; made when this module is imported."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Final

from gateway_app.gateway import Gateway

_NEW_OBJECTS: Final = 25_000
"""How many objects come together before the garbage collector looks at them. Requests leave it nothing to do;
with Python's 700 it ran whenever some dozens of them were under way, and took 6 % of all CPU."""

app = Gateway(Path(os.environ["GATEWAY_CONFIG"]))

gc.collect()
gc.freeze()  # what was imported stays; there is nothing to find in it
gc.set_threshold(_NEW_OBJECTS, 20, 50)
