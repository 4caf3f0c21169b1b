"""The libraries by which code reads what no key can have in it: results of other runs, buckets, services, databases."""

from __future__ import annotations

from collections.abc import Iterable

from k8sflow.executors.fork_server.preload_plan import OURS

_READERS = frozenset({
    "aiobotocore", "aiohttp", "asyncpg", "azure", "boto3", "botocore", "confluent_kafka", "elasticsearch", "ftplib",
    "fsspec", "gcsfs", "google.cloud", "http.client", "httpx", "imaplib", "k8sflow.client", "k8sflow.runner",
    "k8sflow.s3", "kafka", "kubernetes", "mysql", "MySQLdb", "paramiko", "poplib", "psycopg", "psycopg2", "pymongo",
    "pymysql", "pyodbc", "redis", "requests", "s3fs", "smart_open", "snowflake", "socket", "sqlalchemy", "sqlite3",
    "urllib.request", "urllib3", "websockets",
})  # fmt: skip


def readers_in(modules: Iterable[str]) -> set[str]:
    """The modules that read from outside, among those by which code gets at something, as dotted names."""
    return {reader for name in modules for reader in _READERS if f"{name}.".startswith(f"{reader}.")}


def home_of(module: str, name: str) -> str:
    """The module that defines a name; another one than the given one for names that k8sflow shows at its top."""
    if module != OURS:
        return module
    import k8sflow  # noqa: PLC0415  it imports nothing, but this package is being imported by it

    return k8sflow._HOMES.get(name, module)  # noqa: SLF001  the one list of them
