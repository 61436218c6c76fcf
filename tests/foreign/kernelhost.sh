# The documented quickstart: a request signed with openssl and sent with curl. Runs in bash and dash alike.
#
#   KH_KEY=.. KH_SECRET=.. KH_BASE=.. kernelhost.sh METHOD PATH [BODY [IDEMPOTENCY_KEY [TIMES]]]
#
# Prints status and body, a line each; sent TIMES times with the very same headers, so many pairs.
set -eu

METHOD=$1
REQUEST_PATH=$2
BODY=${3-}
TIMES=${5-1}

TIMESTAMP=$(date +%s)
NONCE=$(openssl rand -hex 16)
BODY_HASH=$(printf '%s' "$BODY" | openssl dgst -sha256 -hex | awk '{print $NF}')
SIGNING_STRING=$(printf '%s\n%s\n%s\n%s\n%s' "$METHOD" "$REQUEST_PATH" "$TIMESTAMP" "$NONCE" "$BODY_HASH")
SIGNATURE=$(printf '%s' "$SIGNING_STRING" | openssl dgst -sha256 -hmac "$KH_SECRET" -hex | awk '{print $NF}')

set -- -X "$METHOD" "$KH_BASE$REQUEST_PATH" \
  -H "KH-Key: $KH_KEY" \
  -H "KH-Timestamp: $TIMESTAMP" \
  -H "KH-Nonce: $NONCE" \
  -H "KH-Signature: $SIGNATURE" \
  ${4:+-H "Idempotency-Key: $4"}
if [ -n "$BODY" ]; then
  set -- "$@" -H "Content-Type: application/json" -d "$BODY"
fi

while [ "$TIMES" -gt 0 ]; do
  ANSWER=$(curl -sS -w '\n%{http_code}' "$@")
  printf '%s\n' "$ANSWER" | tail -n 1
  printf '%s\n' "$ANSWER" | sed '$d'
  TIMES=$((TIMES - 1))
done
