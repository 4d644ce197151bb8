# What the agent imports, kept apart from the session's packages: a session can neither miss nor shadow it.
ARG BASE
FROM ${BASE} AS build
ARG BUILD
LABEL session-orchestrator.image.kind=leftover session-orchestrator.image.build=${BUILD}
COPY context /context
RUN ["/opt/environment/bin/python", "/context/install_libraries.py"]

FROM ${BASE}
ARG BUILD
LABEL session-orchestrator.image.build=${BUILD}
COPY --from=build /opt/agent/lib /opt/agent/lib
