"""By what code reads what no key can have in it: other runs, buckets, services, databases, the time, its own run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from k8sflow.executors.fork_server.preload_plan import OURS

_READERS = frozenset({
    "aiobotocore", "aiohttp", "asyncpg", "azure", "boto3", "botocore", "confluent_kafka", "elasticsearch", "ftplib",
    "fsspec", "gcsfs", "google.cloud", "http.client", "httpx", "imaplib", "k8sflow.client", "k8sflow.runner",
    "k8sflow.s3", "kafka", "kubernetes", "mysql", "MySQLdb", "paramiko", "poplib", "psycopg", "psycopg2", "pymongo",
    "pymysql", "pyodbc", "redis", "requests", "s3fs", "smart_open", "snowflake", "socket", "sqlalchemy", "sqlite3",
    "urllib.request", "urllib3", "websockets",
})  # fmt: skip
_OF_TIME = frozenset({"arrow", "calendar", "datetime", "pandas", "pendulum", "time"})
# The times of day, and not those by which code measures how long something takes.
_TIMES = frozenset({"asctime", "ctime", "gmtime", "localtime", "now", "today", "utcnow"})
_OF_ZONES = frozenset({"astimezone", "fromtimestamp", "localtime", "mktime", "strftime", "timestamp", "tzlocal"})
# The facts of ``current`` that each run has of its own.
_OF_ONE_RUN = frozenset({"origin_run_id", "pathspec", "run", "run_id", "task"})


def readers_in(modules: Iterable[str]) -> set[str]:
    """The modules that read from outside, among those by which code gets at something, as dotted names."""
    return {reader for name in modules for reader in _READERS if f"{name}.".startswith(f"{reader}.")}


def reasons(modules: Collection[str], names: Collection[str], current: Collection[str]) -> Iterator[str]:
    """By what the result of code may be another one each time, although nothing in the key is.

    Args:
        modules: The modules by which code gets at something.
        names: The names in the code.
        current: The attributes of ``current`` in it; ``*`` if ``current`` is passed on.
    """
    if readers := readers_in(modules):
        yield f"its code uses {', '.join(sorted(readers))}, and what that reads may have changed"
    if (found := _TIMES.intersection(names)) and uses_time(modules):
        yield f"its code asks for the time ({', '.join(sorted(found))})"
    if found := _OF_ONE_RUN.intersection(current):
        yield f"its code reads {', '.join(f'current.{name}' for name in sorted(found))}, which each run has of its own"
    if "*" in current:
        yield "its code passes current on, which each run has of its own"


def uses_time(modules: Iterable[str]) -> bool:
    """True if code has a module that knows the time."""
    return any(name.partition(".")[0] in _OF_TIME for name in modules)


def uses_zone(modules: Iterable[str], names: Collection[str]) -> bool:
    """True if the result of code may depend on the time zone of the machine."""
    return uses_time(modules) and not _OF_ZONES.isdisjoint(names)


def home_of(module: str, name: str) -> str:
    """The module that defines a name; another one than the given one for names that k8sflow shows at its top."""
    if module != OURS:
        return module
    import k8sflow  # noqa: PLC0415  it imports nothing, but this package is being imported by it

    return k8sflow._HOMES.get(name, module)  # noqa: SLF001  the one list of them
