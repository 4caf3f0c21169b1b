"""The controller in the cluster: starts one driver for each FlowRun, and says so when a driver is gone for good."""
