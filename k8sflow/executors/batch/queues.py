"""The job queues of a run's steps, each looked up once."""

from __future__ import annotations

from k8sflow.aws.api import BatchApi
from k8sflow.aws.queue import Queue, environments_of
from k8sflow.errors import BatchError


class Queues:
    """Looks up job queues.

    Args:
        api: AWS Batch.
        region: Its region, for errors.
    """

    def __init__(self, api: BatchApi, region: str) -> None:
        self._api = api
        self._region = region
        self._known: dict[str, Queue] = {}

    def find(self, name: str) -> Queue:
        """The queue of a name.

        Raises:
            BatchError: There is none.
        """
        if name not in self._known:
            document = self._api.queue(name)
            if document is None:
                raise BatchError(
                    f"there is no job queue {name!r} of AWS Batch in {self._region}.",
                    cause="Its name or the region is wrong, or it belongs to another account.",
                    advice="See `aws batch describe-job-queues`, and set batch_queue and batch_region.",
                )
            environments = self._api.environments(environments_of(document))
            self._known[name] = Queue(str(document["jobQueueName"]), document, tuple(environments))
        return self._known[name]
