"""``S3``: objects in any bucket, for the code of steps, notebooks and scripts.

``client`` has the class, ``objects`` what it takes and returns; ``urls`` and ``roots`` find the object of a key;
``session`` has the connections, ``bucket`` the requests through the clients of ``k8sflow.storage``; ``download`` and
``upload`` transfer bytes, and ``folder`` has the temporary files.
"""

from k8sflow.s3.client import S3 as S3
from k8sflow.s3.objects import RangeInfo as RangeInfo
from k8sflow.s3.objects import S3GetObject as S3GetObject
from k8sflow.s3.objects import S3Object as S3Object
from k8sflow.s3.objects import S3PutObject as S3PutObject

__all__ = ["S3", "RangeInfo", "S3GetObject", "S3Object", "S3PutObject"]
