"""Run flows from Python: ``Runner`` for a flow's file, ``NBRunner`` for a notebook, ``Deployer`` for the cluster."""
