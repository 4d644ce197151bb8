# The current agent on an environment that lacks its libraries, or that is here only with an older agent: all of it
# comes from an image with the same Python that has it already, so that this needs no network and compiles nothing.
ARG BASE
ARG DONOR
FROM ${DONOR} AS donor

FROM ${BASE}
ARG BUILD
LABEL session-orchestrator.image.build=${BUILD}
USER 0:0
# What an older agent had may not stay beside the new one.
RUN ["/opt/environment/bin/python", "-S", "-s", "-P", "-B", "-c", "import shutil; shutil.rmtree('/opt/agent', ignore_errors=True)"]
COPY --from=donor /opt/agent /opt/agent
# The libraries were chosen for the donor's base: fail here, and not when a session wakes, where this one is too old.
RUN ["/opt/environment/bin/python", "-S", "-s", "-P", "-B", "-c", "import sys; sys.path.insert(0, '/opt/agent/lib'); import cloudpickle, xxhash, zstandard"]
USER 65534:65534
ENTRYPOINT ["/opt/environment/bin/python", "-S", "-s", "-P", "/opt/agent/agent"]
