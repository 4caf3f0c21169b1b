# The k8sflow image: the runtime of task pods, the driver and the controller in one.
#
#   /opt/k8sflow   the runtime and its pure-Python dependencies, which run on Python 3.10 or newer of any image:
#                  an init container copies it into pods of other images
#   /opt/venv      driver, controller and the page of runs: k8sflow[controller,ui]; python3 on the PATH stays the base image's
#
# BASE_IMAGE needs Python 3.11 or newer, with pip. A ca-certificates.crt beside the Dockerfile and the PIP_ arguments are
# for networks where PyPI is reached in a special way; neither ends up in the image.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS requirements
USER root
COPY pyproject.toml /
# the dependency lists alone, so that the layers below depend on nothing else of pyproject.toml
RUN python3 -c "import tomllib; project = tomllib.load(open('/pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; \
print(*project['dependencies'], *extras['controller'], *extras['ui'], sep='\n')" >/requirements.txt

FROM ${BASE_IMAGE} AS dependencies
USER root
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY requirements.lock ca-certificates.crt* ./
COPY --from=requirements /requirements.txt ./
RUN set -eu; \
    if [ -f ca-certificates.crt ]; then export PIP_CERT=/build/ca-certificates.crt; fi; \
    python3 -m venv --without-pip /opt/venv; \
    python3 -m pip --python /opt/venv/bin/python install -c requirements.lock -r requirements.txt; \
    python3 -m pip install -c requirements.lock --target /build/tools hatchling; \
    python3 -m pip install -c requirements.lock --target /opt/k8sflow --python-version 3.10 --only-binary=:all: \
        --implementation py --abi none --platform any boto3 click cloudpickle markdown-it-py pathspec threadpoolctl; \
    rm -r /opt/k8sflow/bin
# botocore has data for some 400 services; a run needs S3's and, for workload identity, STS's. Half of the kubernetes
# package, which serves an old kind of kubeconfig, is a copy of the client for asyncio.
RUN set -eu; \
    rm -r /opt/venv/lib/python3*/site-packages/kubernetes/aio; \
    for data in /opt/k8sflow/botocore/data /opt/venv/lib/python3*/site-packages/botocore/data; do \
        find "$data" -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts -exec rm -r {} +; \
    done; \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/k8sflow /opt/venv/lib

FROM dependencies AS source
COPY pyproject.toml README.md LICENSE ./
COPY k8sflow k8sflow
# --no-deps: a dependency that is not in the layer above is found missing by the check
RUN set -eu; \
    PYTHONPATH=/build/tools python3 -m pip --python /opt/venv/bin/python install --no-deps --no-build-isolation .; \
    python3 -m pip --python /opt/venv/bin/python check; \
    site=$(echo /opt/venv/lib/python3*/site-packages); \
    mkdir -p "/source$site" /source/opt/venv/bin /source/opt/k8sflow; \
    cp -r "$site"/k8sflow "$site"/k8sflow-*.dist-info "/source$site"; \
    cp /opt/venv/bin/k8sflow /source/opt/venv/bin; \
    cp -r k8sflow /source/opt/k8sflow; \
    python3 -m compileall -q --invalidation-mode unchecked-hash -s /source /source/opt

FROM ${BASE_IMAGE}
USER root
RUN echo 'k8sflow:x:65532:65532::/tmp:/usr/sbin/nologin' >>/etc/passwd && echo 'k8sflow:x:65532:' >>/etc/group
COPY --from=dependencies /opt/k8sflow /opt/k8sflow
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=source /source /
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
CMD ["/opt/venv/bin/k8sflow", "--help"]
