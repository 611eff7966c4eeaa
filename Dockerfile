# Callboard's images: api, worker, scheduler. docs/kubernetes/images.md tells what is in them.
#
#   docker buildx bake                                all three, both architectures
#   docker build --target worker -t callboard-worker .
#   scripts/images/build.sh                           with buildah, without an image registry
#
# Every stage starts from one base, a Debian with Python 3.11 or newer and venv: the virtual environments link to
# its Python. Behind a mirror give pip its configuration as the secret `pip`.
ARG BASE_IMAGE=python:3.13-slim-bookworm

# Tools that build, none of which ships. pip installs from here into the environments that do.
FROM ${BASE_IMAGE} AS build
RUN mkdir -p /build/bin \
    && { command -v tini || { apt-get update && apt-get install -y --no-install-recommends tini; }; } \
    && cp "$(command -v tini)" /build/bin/tini \
    && dpkg-query -s tini > /build/bin/tini.status
COPY requirements/build.txt /build/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /build/tools \
    && /build/tools/bin/pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: -r /build/build.txt
# Bytecode is checked against nothing at run time: the root is read-only, and times differ between layers.
ENV COMPILE="python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash" \
    INSTALL="/build/tools/bin/pip --python /opt/callboard/venv/bin/python install --no-cache-dir --no-compile \
        --disable-pip-version-check --only-binary :all:"

# Callboard itself: a layer of its own, the same in all three images, which changes with each release while the
# packages' layers below it rarely do.
FROM build AS callboard
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY examples/site examples/site
COPY services services
COPY callboard_apps callboard_apps
COPY callboard callboard
RUN /build/tools/bin/python -m hatchling build -t wheel -d /build/wheel \
    && python3 -m venv --without-pip /opt/callboard/venv \
    && ${INSTALL} --no-index --no-deps --target /opt/callboard/lib /build/wheel/*.whl \
    && ${COMPILE} /opt/callboard/lib

FROM build AS api-packages
COPY requirements/api.txt /build/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/callboard/venv \
    && ${INSTALL} --require-hashes -r /build/api.txt \
    && echo /opt/callboard/lib > "$(echo /opt/callboard/venv/lib/python3.*/site-packages)/callboard.pth" \
    && ${COMPILE} /opt/callboard/venv/lib

FROM build AS scheduler-packages
COPY requirements/scheduler.txt /build/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/callboard/venv \
    && ${INSTALL} --require-hashes -r /build/scheduler.txt \
    && echo /opt/callboard/lib > "$(echo /opt/callboard/venv/lib/python3.*/site-packages)/callboard.pth" \
    && ${COMPILE} /opt/callboard/venv/lib

# With pip, and owned by the user of the image, so that `FROM callboard-worker` and `RUN pip install` is enough.
FROM build AS worker-packages
COPY requirements/worker.txt /build/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/callboard/venv \
    && { ! [ -e /opt/callboard/venv/lib/python3.*/site-packages/setuptools ] \
        || /opt/callboard/venv/bin/pip uninstall -q -y setuptools; } \
    && ${INSTALL} --require-hashes -r /build/worker.txt \
    && /opt/callboard/venv/bin/pip list --disable-pip-version-check --format freeze --exclude pip \
        > /opt/callboard/venv/constraints.txt \
    && echo /opt/callboard/lib > "$(echo /opt/callboard/venv/lib/python3.*/site-packages)/callboard.pth" \
    && ${COMPILE} /opt/callboard/venv/lib

# What all three run on. Modules of one's own may be copied to /app, from which Python imports.
FROM ${BASE_IMAGE} AS base
# Libraries ask for the user's name; the number alone decides what it may do.
RUN echo 'callboard:x:65532:65532:Callboard:/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'callboard:x:65532:' >> /etc/group \
    && mkdir /app
# tini is the first process of all three: it reaps what bodies leave behind, and while Python still imports, when the
# kernel would keep SIGTERM from a first process without a handler, it makes the container end at once. Without -g:
# SIGTERM is for the runner, which drains; its children work on.
COPY --from=build /build/bin/tini /opt/callboard/bin/tini
# Where scanners look for packages that were copied without dpkg.
COPY --from=build /build/bin/tini.status /var/lib/dpkg/status.d/tini
ENV PATH=/opt/callboard/venv/bin:/opt/callboard/lib/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    CALLBOARD_OPS_HOST=0.0.0.0
WORKDIR /app
USER 65532:65532
ARG BASE_IMAGE
LABEL org.opencontainers.image.vendor="Callboard contributors" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.base.name="${BASE_IMAGE}"

FROM base AS api
LABEL org.opencontainers.image.title="callboard-api" \
    org.opencontainers.image.description="Callboard's HTTP API. Holds no task's dependencies."
COPY --from=api-packages /opt/callboard/venv /opt/callboard/venv
COPY --from=callboard /opt/callboard/lib /opt/callboard/lib
ENV CALLBOARD_API_HOST=0.0.0.0
EXPOSE 8000 9000
ENTRYPOINT ["/opt/callboard/bin/tini", "-s", "--", "/opt/callboard/venv/bin/python", "-m", "callboard_api"]
# Last, since they change with each commit.
ARG VERSION=0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"

FROM base AS scheduler
LABEL org.opencontainers.image.title="callboard-scheduler" \
    org.opencontainers.image.description="Callboard's scheduler: schedules, upkeep of the queues, their figures."
COPY --from=scheduler-packages /opt/callboard/venv /opt/callboard/venv
COPY --from=callboard /opt/callboard/lib /opt/callboard/lib
EXPOSE 9000
ENTRYPOINT ["/opt/callboard/bin/tini", "-s", "--", "/opt/callboard/venv/bin/python", "-m", "callboard_scheduler"]
ARG VERSION=0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"

FROM base AS worker
LABEL org.opencontainers.image.title="callboard-worker" \
    org.opencontainers.image.description="Callboard's worker, with the shipped applications. Build yours FROM it."
# What the worker runs on keeps its locked version: a package that needs another fails its installation, and says so.
ENV PIP_CONSTRAINT=/opt/callboard/venv/constraints.txt
COPY --from=worker-packages --chown=65532:65532 /opt/callboard/venv /opt/callboard/venv
COPY --from=callboard /opt/callboard/lib /opt/callboard/lib
EXPOSE 9000
ENTRYPOINT ["/opt/callboard/bin/tini", "-s", "--", "/opt/callboard/venv/bin/python", "-m", "callboard_worker"]
ARG VERSION=0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"
