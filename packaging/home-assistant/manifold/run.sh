#!/bin/sh
# Turns the options that Home Assistant keeps into settings of Manifold, and becomes it.
#
# options.json is flat, and its values are checked against config.yaml's schema before they are written,
# so that no JSON parser is needed: there are no nested objects, and of the texts only the token could
# have quotes inside.
set -eu

options=${OPTIONS_FILE:-/data/options.json}
own_settings=${SETTINGS_FILE:-/config/manifold.toml}
certificates=${SSL_DIR:-/ssl}
routes=${ROUTES_FILE:-/proc/net/fib_trie}

# The Supervisor's network: only Home Assistant reaches an address on it.
ingress_address=172.30.32.1
ingress_port=8099

# option NAME: its value; nothing where it is not set.
option() {
    tr -d '\n' <"$options" | sed -n \
        -e "s/.*\"$1\"[[:space:]]*:[[:space:]]*\"\([^\"]*\)\".*/\1/p" -e t \
        -e "s/.*\"$1\"[[:space:]]*:[[:space:]]*\([a-z0-9.]*\).*/\1/p"
}

listen="0.0.0.0:$(option http_port)"
if grep -q "$ingress_address" "$routes" 2>/dev/null; then
    listen="$listen,$ingress_address:$ingress_port"
fi

export MANIFOLD__LISTEN="$listen"
export MANIFOLD__MEDIA__UDP="0.0.0.0:$(option media_port)"
export MANIFOLD__STORE__DATA_DIR="${DATA_DIR:-/data}"
export MANIFOLD__LOG__LEVEL="$(option log_level)"
export MANIFOLD__VOICE__MAX_CONNECTIONS="$(option max_connections)"
export AUDIO_PORT="$(option audio_port)"

token=$(option token)
case $token in
    *\\*)
        echo 'The token must not contain quotes or backslashes; choose another one in the options.' >&2
        exit 2
        ;;
esac
if [ -n "$token" ]; then
    export MANIFOLD__VOICE__TOKEN="$token"
fi

if [ "$(option https)" = true ]; then
    export MANIFOLD__HTTP__HTTPS="0.0.0.0:$(option https_port)"
    certfile=$(option certfile)
    keyfile=$(option keyfile)
    if [ -n "$certfile" ] && [ -n "$keyfile" ]; then
        export SSL_CERT_FILE="$certificates/$certfile"
        export SSL_KEY_FILE="$certificates/$keyfile"
    fi
else
    export MANIFOLD__HTTP__HTTPS=off
fi

# Cameras, sources and keys have more settings than a form holds: they are a file of one's own. Without
# it only voices are handed out: the camera calls ask for a key that is made here and told to nobody.
if [ -f "$own_settings" ]; then
    exec manifold serve --config "$own_settings"
fi
key_file="$MANIFOLD__STORE__DATA_DIR/api-key"
if [ ! -s "$key_file" ]; then
    mkdir -p "$MANIFOLD__STORE__DATA_DIR"
    (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$key_file")
fi
export MANIFOLD__AUTH__MODE=keys
export MANIFOLD__AUTH__KEYS__addon="$(cat "$key_file")"
exec manifold serve --rtsp ""
