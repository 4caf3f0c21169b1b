"""The smallest flow with a step between start and end."""

from k8sflow import FlowSpec, step


class ThreeSteps(FlowSpec):
    @step
    def start(self):
        self.next(self.middle)

    @step
    def middle(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ThreeSteps()
