"""A faithful fake Kuaimai gateway over real HTTP, with every fault as a switch.

```python
world = World(start=datetime(2026, 3, 1), seed=7)
with Sandbox(world, faults=Faults(drift=2), now=clock) as box:
    box.url, box.credentials, box.faults, box.requests, box.truth()
```

What is documented, what was measured by others and what is our guess: see the README beside this file.
"""

from kuaimai.sandbox.failures import Failure
from kuaimai.sandbox.faults import Faults
from kuaimai.sandbox.gateway import RequestRecord
from kuaimai.sandbox.server import Sandbox
from kuaimai.sandbox.tokens import DemoCredentials
from kuaimai.sandbox.world import World

__all__ = ["DemoCredentials", "Failure", "Faults", "RequestRecord", "Sandbox", "World"]
