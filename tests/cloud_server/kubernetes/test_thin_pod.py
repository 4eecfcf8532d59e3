from __future__ import annotations

import json

from lightkube.core.decoders import decode_object
from lightkube.resources.core_v1 import Pod

from cloud_server.kubernetes.thin_pod import ThinIp, ThinMetadata, ThinPod, ThinSpec, ThinStatus

WHOLE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7", "uid": "u", "labels": {"app": "web"}},
    "spec": {"nodeName": "n1", "hostNetwork": True, "containers": [{"name": "web", "env": [{"name": "A"}]}]},
    "status": {"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}], "conditions": []},
}


def test_all_that_is_not_needed_is_skipped() -> None:
    assert decode_object(json.dumps(WHOLE).encode(), ThinPod) == ThinPod(
        metadata=ThinMetadata(name="web", namespace="shop", resourceVersion="7"),
        spec=ThinSpec(nodeName="n1", hostNetwork=True),
        status=ThinStatus(podIPs=[ThinIp(ip="10.0.0.2")]),
    )


def test_it_is_asked_for_where_pods_are() -> None:
    assert ThinPod._api_info is Pod._api_info
