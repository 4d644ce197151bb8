# An environment: a Python with locked packages in /opt/environment, and nothing that could build or fetch more.
# Every step runs without a network; the wheels come with the build context.
ARG BASE
FROM ${BASE} AS build
ARG BUILD
# By these labels the builder finds the leftovers of its own stages and removes them.
LABEL session-orchestrator.image.kind=leftover session-orchestrator.image.build=${BUILD}
USER 0:0
COPY context /context
RUN ["python3", "/context/install_environment.py"]

FROM ${BASE}
ARG BUILD
LABEL session-orchestrator.image.build=${BUILD}
USER 0:0
COPY --from=build /opt/environment /opt/environment
COPY context/strip_root.py /run/strip_root.py
RUN ["/opt/environment/bin/python", "/run/strip_root.py"]
