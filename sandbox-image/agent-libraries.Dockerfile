# What the agent imports, kept apart from the session's packages: a session can neither miss nor shadow it.
ARG BASE
FROM ${BASE} AS build
LABEL session-orchestrator.image.kind=leftover
COPY context /context
RUN ["/opt/environment/bin/python", "/context/install_libraries.py"]

FROM ${BASE}
COPY --from=build /opt/agent/lib /opt/agent/lib
