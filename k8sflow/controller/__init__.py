"""The controller in the cluster: it starts one driver for each FlowRun, and reports drivers that died for good."""
