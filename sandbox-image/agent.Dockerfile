# The sandbox image: the agent's code as the last layer, so that a changed line costs only this one.
ARG BASE
FROM ${BASE} AS build
ARG BUILD
LABEL session-orchestrator.image.kind=leftover session-orchestrator.image.build=${BUILD}
COPY agent /opt/agent/agent
# The hash stands in each .pyc unchecked: the root is read-only, so no source can change under it.
RUN ["/opt/environment/bin/python", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/opt/agent/agent"]

FROM ${BASE}
ARG BUILD
LABEL session-orchestrator.image.build=${BUILD}
COPY --from=build /opt/agent/agent /opt/agent/agent
# The orchestrator gives each sandbox a uid of its own; this one is for whoever starts the image by hand.
USER 65534:65534
ENTRYPOINT ["/opt/environment/bin/python", "-S", "-s", "-P", "/opt/agent/agent/__main__.py"]
