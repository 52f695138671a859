# shellcheck shell=bash
# Sourced by ./demo, ./test and .ci/run: checks for what the build and the tests need, and installs what is missing where it may.
# Silent when all is there. Expects the top folder of the repository as the working directory.

# The features that are not default ones: what is checked and tested has them all.
# shellcheck disable=SC2034
all_features=es-kafka/http,es-kafka/mimalloc,es-kafka/otel,es-testkit/kafka-server,es-testkit/simulate,es-testkit/disk-faults

# setup build  – Rust, a C++ compiler, make, pkg-config, the headers of OpenSSL and zlib.
# setup tests  – all that, and a JDK and Maven for the real Kafka.
setup() {
    local packages=()
    # A Rust that was installed after this shell started.
    case ":$PATH:" in *":$HOME/.cargo/bin:"*) ;; *) PATH="$HOME/.cargo/bin:$PATH" ;; esac

    command -v c++ >/dev/null || packages+=(g++)
    command -v make >/dev/null || packages+=(make)
    command -v pkg-config >/dev/null || packages+=(pkg-config)
    setup_has_header openssl /usr/include/openssl/ssl.h || packages+=(libssl-dev)
    setup_has_header zlib /usr/include/zlib.h || packages+=(zlib1g-dev)
    if [ "$1" = tests ]; then
        setup_has_jdk || packages+=(default-jdk-headless)
        command -v mvn >/dev/null || packages+=(maven)
    fi
    [ ${#packages[@]} -eq 0 ] || setup_packages "${packages[@]}" || return
    setup_has_rust || setup_rust
}

setup_has_header() {
    pkg-config --exists "$1" 2>/dev/null || [ -e "$2" ]
}

# A JDK, not a JRE: the tests run a small Java program from its source.
setup_has_jdk() {
    local javac=javac version
    [ -z "${JAVA_HOME:-}" ] || javac=$JAVA_HOME/bin/javac
    version=$("$javac" -version 2>&1) || return
    version=${version#javac }
    [ "${version%%[!0-9]*}" -ge 17 ] 2>/dev/null
}

# Whether cargo runs here and its rustc is new enough. With rustup this is the toolchain that rust-toolchain.toml names.
setup_has_rust() {
    local have want
    cargo --version >/dev/null 2>&1 || return
    have=$(rustc --version 2>/dev/null) || return
    have=${have#rustc }
    have=${have%%[ -]*}
    want=$(setup_rust_version)
    [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ]
}

setup_rust_version() {
    sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml
}

setup_rust() {
    local version installer='curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none'
    version=$(setup_rust_version)
    if ! command -v rustup >/dev/null; then
        # Debian has rustup from version 13 on.
        if setup_may_install && setup_update && setup_offers rustup && setup_packages rustup; then
            :
        elif command -v curl >/dev/null || { setup_may_install && setup_packages curl ca-certificates; }; then
            setup_step "installing rustup" bash -o pipefail -c "$installer --no-modify-path" || { setup_advise "$installer"; return 1; }
        else
            setup_advise "$installer"
            return 1
        fi
        hash -r
    fi
    setup_step "installing Rust $version" rustup toolchain install "$version" --profile minimal --component rustfmt --component clippy ||
        { setup_advise "rustup toolchain install $version --component rustfmt --component clippy"; return 1; }
    setup_has_rust || { setup_say "cargo still does not run here: $(cargo --version 2>&1)"; return 1; }
}

setup_packages() {
    local line="apt-get install -y --no-install-recommends --no-remove $*"
    if ! command -v apt-get >/dev/null; then
        setup_say "this system has no apt-get; install what Debian calls: $*"
        return 1
    elif ! setup_may_install; then
        setup_advise "sudo apt-get update && sudo $line"
        return 1
    fi
    # shellcheck disable=SC2086 # words of a command
    if ! { setup_update && setup_step "installing $*" setup_as_root $line; }; then
        setup_advise "apt-get update && $line"
        return 1
    fi
    hash -r
}

# The lists of packages, once.
setup_update() {
    [ -z "${setup_updated:-}" ] || return 0
    setup_step "updating the lists of packages" setup_as_root apt-get update && setup_updated=yes
}

# Whether the system's package manager has the package.
setup_offers() {
    local candidate
    candidate=$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    [ -n "$candidate" ] && [ "$candidate" != "(none)" ]
}

setup_may_install() {
    command -v apt-get >/dev/null || return
    [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null
}

setup_as_root() {
    local environment=(env DEBIAN_FRONTEND=noninteractive)
    if [ "$(id -u)" -eq 0 ]; then "${environment[@]}" "$@"; else sudo -n "${environment[@]}" "$@"; fi
}

# setup_step WHAT COMMAND...: runs it with a line of progress; its output is shown only when it fails.
setup_step() {
    local what=$1 log
    shift
    log=$(mktemp)
    setup_say "$what ..."
    if "$@" >"$log" 2>&1 </dev/null; then
        rm -f "$log"
    else
        setup_say "$what failed:"
        tail -n 30 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

setup_say() {
    printf 'setup: %s\n' "$*" >&2
}

setup_advise() {
    setup_say "please run this, then start again:"
    printf '\n    %s\n\n' "$*" >&2
}
