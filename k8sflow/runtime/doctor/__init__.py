"""``k8sflow doctor``: checks machine, cluster and bucket without a run."""
