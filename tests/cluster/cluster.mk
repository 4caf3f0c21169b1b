# The test cluster; its environment goes to stdout: `eval "$(make -s cluster)"`.
.PHONY: cluster cluster-status cluster-down
cluster: ## create the test cluster, or reuse it, and print its environment
	@$(PYTHON) -m tests.cluster up
cluster-status: ## say whether the test cluster is usable
	@$(PYTHON) -m tests.cluster status
cluster-down: ## remove the test cluster and what it started, but keep what was built
	@$(PYTHON) -m tests.cluster down

.PHONY: lock
lock: $(VENV) ## pin the newest versions of all dependencies for the k8sflow image
	@$(BIN)/python -m tests.cluster.lock
