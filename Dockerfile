# Images of Pricer, for docker, podman and buildah (with --format docker, or HEALTHCHECK is lost):
#   docker build --target server  -t pricer-server .    the server, and `pricer` for jobs and probes; on CPUs
#   docker build --target trainer -t pricer-trainer .   the trainer; on CPUs
#   docker build --target server-gpu  -t pricer-server-gpu .    the same on NVIDIA GPUs too, for those of GPUS
#   docker build --target trainer-gpu -t pricer-trainer-gpu .
#   docker build --target test .                        builds and runs the tests, like scripts/test
# BASE pins another Debian 12, such as one by digest; COMMIT is what `--version` and the labels say.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS setup
ENV PRICER_CACHE=/var/cache/pricer
WORKDIR /src
# What changes seldom, so that what it fetches is kept between builds.
COPY scripts/ scripts/
COPY model/tokenizer_ffi/ model/tokenizer_ffi/
RUN scripts/setup

FROM setup AS build
ARG COMMIT=unknown
COPY . .
RUN cmake --preset release -DPRICER_COMMIT=${COMMIT} \
 && cmake --build build/release --target pricer pricer-server pricer-trainer \
 && cmake --install build/release --prefix /opt/server --component server --strip \
 && cmake --install build/release --prefix /opt/trainer --component trainer --strip

# CMake's list, as in cmake/cuda.cmake.
FROM setup AS build-gpu
RUN scripts/setup --cuda --cuda-run
ARG COMMIT=unknown
ARG GPUS="80-real;86-real;89-real;90-real;100"
COPY . .
RUN cmake --preset cuda -DPRICER_COMMIT=${COMMIT} "-DCMAKE_CUDA_ARCHITECTURES=${GPUS}" \
 && cmake --build build/cuda --target pricer pricer-server pricer-trainer \
 && cmake --install build/cuda --prefix /opt/server --component server --strip \
 && cmake --install build/cuda --prefix /opt/trainer --component trainer --strip

FROM build AS test
RUN scripts/test

# What all final images share: no compiler, no Python, nobody's user; the root may be read-only.
FROM ${BASE} AS runtime
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      libabsl20220623 libfmt9 libgrpc++1.51 libjemalloc2 libmicrohttpd12 libprometheus-cpp-core1.0 \
      libprotobuf32 libprotobuf-lite32 libspdlog1.10 libssl3 libtomlplusplus3 libzstd1 zlib1g \
 && rm -rf /var/lib/apt/lists/* /var/log/*
# Of stores of objects; the package would bring a program that is not needed.
COPY --from=setup /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="Pricer" \
      org.opencontainers.image.description="Prices products from their text" \
      org.opencontainers.image.revision="${COMMIT}"
# OpenMP's threads would spin for work between batches.
ENV PATH=/opt/pricer/bin:/usr/local/bin:/usr/bin:/bin OMP_WAIT_POLICY=PASSIVE
USER 65532:65532

FROM runtime AS trainer
COPY --from=build /opt/trainer /opt/pricer
ENTRYPOINT ["pricer-trainer"]

FROM runtime AS trainer-gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /opt/trainer /opt/pricer
ENTRYPOINT ["pricer-trainer"]

FROM runtime AS server-gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /opt/server /opt/pricer
EXPOSE 8500 8502 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m CMD ["pricer", "health", "--server", "127.0.0.1:8502"]
ENTRYPOINT ["pricer-server"]

# Last: what `docker build .` makes.
FROM runtime AS server
COPY --from=build /opt/server /opt/pricer
EXPOSE 8500 8502 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m CMD ["pricer", "health", "--server", "127.0.0.1:8502"]
ENTRYPOINT ["pricer-server"]
