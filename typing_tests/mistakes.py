"""Mistakes that ``mypy --strict`` has to find; each line with one says so."""

from k8sflow import FlowSpec, Parameter, kubernetes, project, resources, retry, step, timeout


@project(nmae="fraud")  # error
class Wrong(FlowSpec):
    rows = Parameter("rows", defualt=10)  # error

    @retry(tmies=3)  # error
    @step
    def start(self) -> None:
        self.next(self.middle)

    @resources(cpuu=2)  # error
    @timeout(minutes=[5])  # error
    @step
    def middle(self) -> None:
        self.next(self.end, foreech="rows")  # error

    @kubernetes(image=5)  # error
    @kubernetes(queues="team")  # error
    @kubernetes(secrets={"token": 1}, affinity=["x"])  # error
    @step(stop=True)  # error
    def end(self) -> None: ...
