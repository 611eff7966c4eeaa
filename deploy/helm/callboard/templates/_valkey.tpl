{{- define "callboard.valkeyConfig" -}}
port 6379
{{- if ne .Values.listen.address "podIP" }}
bind * -::*
{{- end }}
dir /data
# The password, from a Secret.
include /run/secrets/valkey/auth.conf
appendonly yes
appendfsync {{ .Values.valkey.appendfsync }}
# Snapshots would only double the writes: the append-only file has everything.
save ""
# Without eviction: a store that forgets tasks is none.
maxmemory {{ include "callboard.quantity" (list "valkey.maxmemory" .Values.valkey.maxmemory) | float64 | int64 }}
maxmemory-policy noeviction
tcp-keepalive 60
{{- with .Values.valkey.extraConfig }}
{{ . }}
{{- end }}
{{- end -}}

{{- /* A connection is enough: while it loads it says so, and callers wait. Reading a large file takes minutes. */ -}}
{{- define "callboard.valkeyProbes" -}}
startup: {tcpSocket: {port: redis}, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 60}
readiness: {tcpSocket: {port: redis}, periodSeconds: 5, timeoutSeconds: 2, failureThreshold: 2}
liveness: {tcpSocket: {port: redis}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
{{- end -}}
