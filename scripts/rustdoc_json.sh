#!/bin/sh
# rustdoc with its JSON output, which a stable compiler holds back. Only rustdoc is told so: what is compiled stays as it
# is, and nothing is built twice.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
