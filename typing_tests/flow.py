"""A user's flow, as ``mypy --strict`` has to accept it; ``reveal_type`` results are compared by the test."""

from typing import Annotated

from k8sflow import (
    Config,
    FlowSpec,
    IncludeFile,
    JSONType,
    Parameter,
    catch,
    config_expr,
    current,
    environment,
    exit_hook,
    kubernetes,
    parallel,
    parallel_map,
    project,
    resources,
    retry,
    schedule,
    secrets,
    step,
    timeout,
    trigger,
    trigger_on_finish,
)
from k8sflow.plugins import Option, decorator


@decorator("prints around the step")
def loud(*, volume: Annotated[int, Option(int, "how loud")] = 3) -> None: ...


def succeeded() -> None: ...


@exit_hook(on_success=[succeeded])
@schedule(daily=True)
@trigger(event="data")
@trigger_on_finish(flow="Other")
@project(name="fraud")
class Typed(FlowSpec):
    """Every decorator, in each way in which it is written."""

    rows = Parameter("rows", default=10)
    table = Parameter("table", type=JSONType, default="{}")
    limits = Config("limits", default_value={"cpu": 2})
    text = IncludeFile("text", required=False)

    @loud
    @loud(volume=5)
    @retry
    @retry(times=3, minutes_between_retries=0.5)
    @timeout(minutes=5)
    @catch(var="error")
    @environment(vars={"A": "1"})
    @secrets(sources=["file:/run/secrets/db.env"])
    @resources(cpu=8, memory=60000)
    @kubernetes(
        image="python:3.12",
        labels={"team": "a"},
        cpu_limit=2.5,
        secrets=["token"],
        empty_dirs={"/spool": {"size": "1Gi", "medium": "Memory"}, "/more": 500},
        host_aliases={"10.0.0.5": ["db"]},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
        affinity={"nodeAffinity": {}},
        topology_spread="topology.kubernetes.io/zone",
        use_tmpfs=True,
        queue="team",
        pod_template="pod.yaml",
    )
    @step
    def start(self) -> None:
        self.squares = parallel_map(lambda n: n * n, range(10))
        self.next(self.train, num_parallel=4)

    @parallel
    @resources(cpu=config_expr("limits.cpu"), memory=limits.memory)
    @retry(**limits.retry)
    @step
    def train(self) -> None:
        reveal_type(current.parallel.node_index)
        self.next(self.end)

    @step(end=True)
    def end(self) -> None:
        reveal_type(current.run_id)


reveal_type(resources(cpu=2))
reveal_type(retry)
reveal_type(Typed.start)
reveal_type(Typed)
reveal_type(loud)
