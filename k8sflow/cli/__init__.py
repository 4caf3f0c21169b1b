"""The command line: ``python flow.py …`` for a flow, ``k8sflow …`` for what needs no flow file."""
