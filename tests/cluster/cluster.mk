# The test cluster; its environment goes to stdout: `eval "$(make -s cluster)"`.
.PHONY: cluster cluster-status cluster-down
cluster: ## make the test cluster, or re-use it, and print its environment
	@$(PYTHON) -m tests.cluster up
cluster-status: ## tell whether the test cluster can be used
	@$(PYTHON) -m tests.cluster status
cluster-down: ## remove the test cluster and what it started; what was built stays
	@$(PYTHON) -m tests.cluster down

.PHONY: lock
lock: $(VENV) ## pin the newest versions of all dependencies for the k8sflow image
	@$(BIN)/python -m tests.cluster.lock
