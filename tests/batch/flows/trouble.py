"""A flow that fails in the way that a parameter names."""

import ctypes
import os
import time

from k8sflow import FlowSpec, Parameter, catch, current, environment, resources, retry, step, timeout


class BatchTrouble(FlowSpec):
    """Fails, each time or at first."""

    how = Parameter("how", default="error")

    @resources(cpu=1, memory=150)
    @step
    def start(self):
        """Fail."""
        self.attempt = current.retry_count
        print("about to fail by", self.how, flush=True)
        if self.how == "error":
            raise ValueError("no rows in week 3")
        if self.how == "memory":
            held = []
            while True:
                held.append(bytearray(b"x" * 10_000_000))
        if self.how == "crash":
            ctypes.string_at(0)
        if self.how == "sleep":
            time.sleep(600)
        self.next(self.survives)

    @environment(vars={"GREETING": "hello $HOME and $(HOME)"})
    @retry(times=1, minutes_between_retries=0)
    @resources(cpu=1, memory=150)
    @step
    def survives(self):
        """Fail once."""
        self.greeting = os.environ["GREETING"]
        if current.retry_count == 0:
            raise RuntimeError("only once")
        self.next(self.slow)

    @timeout(seconds=1)
    @catch(var="failure")
    @resources(cpu=1, memory=150)
    @step
    def slow(self):
        """Take too long."""
        time.sleep(60)
        self.next(self.end)

    @resources(cpu=1, memory=150)
    @step
    def end(self):
        """Print what was caught."""
        print(self.greeting, self.failure.outcome)


if __name__ == "__main__":
    BatchTrouble()
