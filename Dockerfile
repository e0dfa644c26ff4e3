# The GVSL service as a container. Target `cpu`: Debian 12's packages only. A `cuda` target will stand
# beside it, built from the same `build` stage over a CUDA LibTorch.
#
#   scripts/image                                # builds and tries it, with Docker or buildah
#   docker build --target cpu -t gvsl:cpu .
#   docker run -p 127.0.0.1:8500:8500 -v gvsl:/var/lib/gvsl gvsl:cpu
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
WORKDIR /src
COPY scripts/setup scripts/packages.txt scripts/
RUN scripts/setup --yes
COPY . .
# Programs alone; the tests run outside the image (scripts/test).
RUN --mount=type=cache,target=/ccache \
    export CCACHE_DIR=/ccache && cmake --preset release && cmake --build --preset release --target gvsld gvsl gvsl-ingest gvsl-dicom-decoder gvsl-trainer \
    && strip build/bin/gvsld build/bin/gvsl build/bin/gvsl-ingest build/bin/gvsl-dicom-decoder build/bin/gvsl-trainer

FROM ${BASE} AS cpu
# Libraries first: this layer changes only with the list.
COPY deploy/runtime-packages.txt /usr/share/gvsl/
RUN apt-get update -q \
    && sed -e 's/#.*//' /usr/share/gvsl/runtime-packages.txt | DEBIAN_FRONTEND=noninteractive \
       xargs apt-get install -q -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/* \
    && useradd --uid 8500 --no-create-home --home-dir /var/lib/gvsl --shell /usr/sbin/nologin gvsl \
    && install -d -o gvsl -g gvsl -m 0750 /var/lib/gvsl
COPY --from=build /src/build/bin/gvsld /src/build/bin/gvsl /src/build/bin/gvsl-ingest /src/build/bin/gvsl-dicom-decoder /src/build/bin/gvsl-trainer /usr/bin/
COPY LICENSE /usr/share/gvsl/
USER gvsl
VOLUME /var/lib/gvsl
EXPOSE 8500
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 CMD ["gvsl", "health"]
# No shell: gvsld is process 1 and hears SIGTERM itself.
ENTRYPOINT ["gvsld", "--data_dir", "/var/lib/gvsl", "--listen", "0.0.0.0:8500"]
