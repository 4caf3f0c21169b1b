"""One step that fails in the requested way."""

import os
import signal
import sys
import threading
import time

from k8sflow import FlowSpec, Parameter, current, resources, step


class Trouble(FlowSpec):
    what = Parameter("what", default="nothing")

    @resources(cpu=0.1, memory=150)
    @step
    def start(self):
        print("before the trouble", flush=True)
        getattr(self, f"do_{self.what}")()
        self.next(self.end)

    @resources(cpu=0.1, memory=150)
    @step
    def end(self):
        print("no trouble")

    def do_nothing(self):
        pass

    def do_raise(self):
        raise ValueError("wörld\nin two lines")

    def do_memory(self):
        print(f"allocating at {time.time()}", flush=True)
        bytearray(400_000_000)

    def do_child_memory(self):
        if os.fork() == 0:
            bytearray(400_000_000)
            os._exit(0)
        _, status = os.wait()
        raise RuntimeError(f"a child ended with {status}")

    def do_segfault(self):
        os.kill(os.getpid(), signal.SIGSEGV)

    def do_exit(self):
        os._exit(0)

    def do_sleep(self):
        print("sleeping", flush=True)
        time.sleep(600)

    def do_sleep_once(self):
        if not current.checkpoint.is_loaded:
            current.checkpoint.save()
            self.do_sleep()
        print("not again")

    def do_slow_output(self):
        for line in range(4):
            print(f"line {line} at {time.time()}", flush=True)
            time.sleep(2)
        print("on stderr", file=sys.stderr, flush=True)
        sys.stdout.write("no newline at the end")

    def do_lock(self):
        self.lock = {"inner": threading.Lock()}


if __name__ == "__main__":
    Trouble()
