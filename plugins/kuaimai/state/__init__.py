"""The coordination store: what the processes of one installation agree on.

One small database (SQLite on one machine, PostgreSQL or MySQL for many) keeps leases with fencing numbers,
circuit breakers and alert marks. It holds no credentials and no business data.
"""

from kuaimai.state.breakers import Breaker
from kuaimai.state.leases import Lease, LeaseLost, LeaseTaken
from kuaimai.state.store import Store

__all__ = ["Breaker", "Lease", "LeaseLost", "LeaseTaken", "Store"]
