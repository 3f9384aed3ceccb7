# The daemon's image: a static binary, root certificates and a configuration file. It has no shell.
#
#   docker build -t xrayd .                          for this machine's architecture
#   docker build --platform linux/arm64 -t xrayd .   for another architecture: the compiler runs on
#                                                    this machine and cross-compiles (x86_64, arm64)
#   docker build --target amazonlinux -t xrayd .     on Amazon Linux, with a shell
#   docker build --build-arg PROFILE=ci -t xrayd .   in half the time, for trials
#
# tests/container builds and runs the image.

FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95.0-bookworm AS build
# amd64 or arm64. The builder sets this variable from --platform.
ARG TARGETARCH
# The build profile in Cargo.toml.
ARG PROFILE=dist
WORKDIR /build
COPY . .
# glibc is linked statically: for "files" and "dns" its resolver loads no library at run time.
# Packed relocations save half a megabyte. A linker that cannot pack them warns and goes on.
RUN set -eu; \
    case $TARGETARCH in \
        amd64) machine=x86_64 ;; \
        arm64) machine=aarch64 ;; \
        *) echo "unsupported architecture: $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    target=$machine-unknown-linux-gnu; strip=strip; \
    if [ "$(uname -m)" != $machine ]; then \
        cross=$(echo $machine-linux-gnu | tr _ -); strip=$machine-linux-gnu-strip; \
        if ! command -v $machine-linux-gnu-gcc; then \
            apt-get update; \
            apt-get install -y --no-install-recommends gcc-$cross libc6-dev-$TARGETARCH-cross; \
        fi; \
        [ -e "$(rustc --print target-libdir --target $target)" ] || rustup target add $target; \
        linker=CARGO_TARGET_$(echo $target | tr a-z- A-Z_)_LINKER; \
        export "$linker=$machine-linux-gnu-gcc"; \
    fi; \
    RUSTFLAGS="-C target-feature=+crt-static" \
        cargo rustc --locked --bin xray --profile $PROFILE --target $target -- \
        -C link-arg=-Wl,-z,pack-relative-relocs; \
    mkdir -p /image/usr/bin /image/etc/amazon/xray /image/etc/ssl/certs; \
    $strip -o /image/xray target/$target/$PROFILE/xray; \
    ln /image/xray /image/usr/bin/xray; \
    cp deploy/cfg.yaml /image/etc/amazon/xray/; \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    echo "xray:x:10001:10001::/:/sbin/nologin" > /image/etc/passwd; \
    echo "xray:x:10001:" > /image/etc/group; \
    echo "hosts: files dns" > /image/etc/nsswitch.conf

FROM public.ecr.aws/amazonlinux/amazonlinux:2023-minimal AS amazonlinux
COPY --from=build /image/xray /xray
COPY --from=build /image/usr/bin/xray /usr/bin/xray
COPY --from=build /image/etc/amazon /etc/amazon
# A static program cannot load the libraries of other name services.
COPY --from=build /image/etc/nsswitch.conf /etc/nsswitch.conf
COPY --from=build /image/etc/passwd /image/etc/group /image/
RUN set -eu; cd /image; cat passwd >> /etc/passwd; cat group >> /etc/group; cd /; rm -r /image
USER 10001
EXPOSE 2000/udp 2000/tcp
HEALTHCHECK --interval=10s --start-period=10s --timeout=6s --retries=3 CMD ["/xray", "healthcheck"]
ENTRYPOINT ["/xray", "-t", "0.0.0.0:2000", "-b", "0.0.0.0:2000"]

FROM scratch
COPY --from=build /image/ /
USER 10001
EXPOSE 2000/udp 2000/tcp
HEALTHCHECK --interval=10s --start-period=10s --timeout=6s --retries=3 CMD ["/xray", "healthcheck"]
ENTRYPOINT ["/xray", "-t", "0.0.0.0:2000", "-b", "0.0.0.0:2000"]
