"""Test hosts: whole machines to install packages on, each made in a fraction of a second.

A host is an overlay of the running machine's `/` in namespaces of its own. It has its own
`/etc/countersign`, rpm and dpkg databases, PostgreSQL cluster and network, and it leaves nothing
behind, however the test ends. Making one needs root.

```python
with Host.start("qat") as host:
    host.copy_in(package, "/srv/crm.rpm")
    host.run(["rpm", "-i", "/srv/crm.rpm"], check=True)
    assert host.at("/opt/crm/current/VERSION").read_text() == "1.4.0"
```
"""

from tests.hosts.host import Host
from tests.hosts.process import CommandFailedError, HostProcess

__all__ = ["CommandFailedError", "Host", "HostProcess"]
