#!/bin/sh
# Instead of `trap cleanup EXIT` with `kill -- -$$`: also after kill -9, and also what called setsid.
exec "${INSTANCE_GUARD:-instance-guard}" run --timeout "${LIMIT:-10m}" --grace 2s -- "$@"
