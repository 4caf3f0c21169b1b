"""A foreach whose branches have packages of their own, and unzip the same wheels by hand to compare."""

import io
import tempfile
import time
import zipfile
from pathlib import Path

from k8sflow import FlowSpec, Parameter, current, pypi, step


class Packages(FlowSpec):
    width = Parameter("width", default=1)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @pypi(packages={"pandas": "", "scikit-learn": ""})
    @step
    def work(self):
        began = time.monotonic()
        import pandas as pd
        import sklearn

        print(f"imported pandas {pd.__version__} and scikit-learn {sklearn.__version__}", time.monotonic() - began)
        if self.width == 1:
            print(f"bare unzip: {bare_unzip():.3f} s")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


def bare_unzip():
    """Get the wheels of this step from the bucket, and return how many seconds their unzip takes."""
    from k8sflow import config
    from k8sflow.storage.artifacts import blob_key
    from k8sflow.storage.open_store import store_of
    from k8sflow.storage.run_store import RunStore

    settings = config.load(Path.cwd())
    store = store_of(settings, f"s3://{settings.bucket}")
    lock = RunStore(store, current.flow_name, current.run_id).read().environments["work"]
    wheels = [store.get(blob_key(current.flow_name, file.blob)) for file in lock.files]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        began = time.monotonic()
        for wheel in wheels:
            with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
                archive.extractall(folder)
        return time.monotonic() - began


if __name__ == "__main__":
    Packages()
