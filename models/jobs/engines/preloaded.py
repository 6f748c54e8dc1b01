"""The last module that the fork server loads: what is loaded by then is never garbage.

Jobs are forks of the server. If each collected garbage among the 450,000 objects of the libraries,
it would take a quarter of a second each time, and copy their memory, which jobs share untouched.
"""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
