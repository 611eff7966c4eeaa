"""What Kubernetes knows of us, and what we tell it: the only room that speaks to its API.

Outside a cluster nothing here runs. Inside one, nothing that it says is needed for a task to run: an API
server that does not answer, or a permission that is missing, costs the convenience and nothing else.
"""

from callboard.cluster.coroner import Coroner
from callboard.cluster.herald import Herald
from callboard.cluster.kube import Kube
from callboard.cluster.place import Place, find, here
from callboard.cluster.scales import Scales

__all__ = ["Coroner", "Herald", "Kube", "Place", "Scales", "find", "here"]
