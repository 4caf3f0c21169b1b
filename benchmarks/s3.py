"""The users' S3 beside Metaflow's, and boto3 as one would write it by hand: the same objects on one versitygw.

make bench-s3
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from side_by_side import Comparison, Contender, options, run_all

from tests import s3server

SMALL = 1000
SMALL_BYTES = 10_000
LARGE_BYTES = 1 << 30
THREADS = 32
ROOT = f"s3://{s3server.BUCKET}/bench"
KEYS = [f"small/{number:04}" for number in range(SMALL)]
Do = Callable[[Any], None]  # takes an S3 of k8sflow or of Metaflow


def main() -> None:
    """Start the server, write the objects that are read, and compare."""
    parser = options("The users' S3 beside Metaflow's and boto3.", times=3)
    parser.add_argument("--large-bytes", type=int, default=LARGE_BYTES, help="size of the large object [%(default)s]")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3server.s3_server(Path(folder)) as server:
        os.environ.update(s3server.KEYS, **s3server.NO_FILES, K8SFLOW_ENDPOINT=server.endpoint)
        os.environ.update(METAFLOW_S3_ENDPOINT_URL=server.endpoint, AWS_DEFAULT_REGION="us-east-1")
        (Path(folder) / "large").write_bytes(os.urandom(1 << 20) * (chosen.large_bytes >> 20))
        run_all(comparisons(Path(folder), server.endpoint, chosen.times), chosen)


def comparisons(folder: Path, endpoint: str, times: int) -> list[Comparison]:
    """The four comparisons; those that read follow the one that has written the objects."""
    values = [(key, os.urandom(SMALL_BYTES)) for key in KEYS]
    file, size = folder / "large", (folder / "large").stat().st_size
    boto3 = Boto(endpoint, folder)

    def read(found: list[Any], expected: int) -> None:
        assert sum(each.size for each in found) == expected

    def case(name: str, bare: str, do: Do, by_hand: Callable[[], None]) -> Comparison:
        contenders = (
            Contender("k8sflow", lambda: _ours(do, folder), times),
            Contender("k8sflow with boto3's client", lambda: _ours_by_boto3(do, folder), times),
            Contender("bare", by_hand, times),
            Contender("Metaflow", lambda: _metaflow(do, folder), times),
        )
        return Comparison(name, bare, contenders)

    threads = f"boto3 in {THREADS} threads"
    return [
        case(
            f"put_many of {SMALL:,} objects of {SMALL_BYTES:,} bytes",
            threads,
            lambda s3: s3.put_many(values),
            lambda: boto3.put(values),
        ),
        case(
            f"get_many of {SMALL:,} objects of {SMALL_BYTES:,} bytes",
            threads,
            lambda s3: read(s3.get_many(KEYS), SMALL * SMALL_BYTES),
            boto3.get,
        ),
        case(
            f"put_files of one of {size >> 20:,} MiB",
            "boto3's upload_file",
            lambda s3: s3.put_files([("large", str(file))]),
            lambda: boto3.upload(file),
        ),
        case(
            f"get of one of {size >> 20:,} MiB",
            "boto3's download_file",
            lambda s3: read([s3.get("large")], size),
            boto3.download,
        ),
    ]


def _ours(do: Do, folder: Path) -> None:
    from k8sflow import S3

    with S3(s3root=ROOT, tmproot=folder) as s3:
        do(s3)


def _ours_by_boto3(do: Do, folder: Path) -> None:
    """As for AWS itself, and for keys of profiles and roles."""
    from k8sflow.s3 import bucket

    with mock.patch.object(bucket, "plain_client", return_value=None):
        _ours(do, folder)


def _metaflow(do: Do, folder: Path) -> None:
    from metaflow import S3

    with S3(s3root=ROOT, tmproot=str(folder)) as s3:
        do(s3)


class Boto:
    """The same work with boto3 and threads."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        config = Config(max_pool_connections=THREADS, s3={"addressing_style": "path"})
        self._client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)
        self._transfer = TransferConfig(multipart_chunksize=16 << 20, max_concurrency=8)
        self._folder = folder

    def put(self, values: list[tuple[str, bytes]]) -> None:
        def one(item: tuple[str, bytes]) -> None:
            self._client.put_object(Bucket=s3server.BUCKET, Key=f"bench/{item[0]}", Body=item[1])

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(one, values))

    def get(self) -> None:
        with self._new_folder() as folder:

            def one(key: str) -> None:
                found = self._client.get_object(Bucket=s3server.BUCKET, Key=f"bench/{key}")
                (folder / key.replace("/", "-")).write_bytes(found["Body"].read())

            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(one, KEYS))

    def upload(self, file: Path) -> None:
        self._client.upload_file(str(file), s3server.BUCKET, "bench/large", Config=self._transfer)

    def download(self) -> None:
        with self._new_folder() as folder:
            self._client.download_file(s3server.BUCKET, "bench/large", str(folder / "large"), Config=self._transfer)

    @contextmanager
    def _new_folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            yield Path(folder)


if __name__ == "__main__":
    main()
