// Two small programs of the node image; the standard library is all they need.
module k8sflow.dev/tests/cluster/tools/node

go 1.21
