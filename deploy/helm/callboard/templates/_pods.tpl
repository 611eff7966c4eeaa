{{- /* What the pods of API, workers and scheduler have in common. */ -}}

{{- /* (list $ CHARTS LAYER…): the environment as a list, by name; each layer wins over the one before. Names are unique:
an API server refuses a name twice. */ -}}
{{- define "callboard.env" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
{{- $env := dict
  "CALLBOARD_NAMESPACE" $values.settings.namespace
  "CALLBOARD_DURABILITY" $values.settings.durability
  "CALLBOARD_LOG_FORMAT" $values.settings.logFormat
  "CALLBOARD_LOG_LEVEL" $values.settings.logLevel
  "CALLBOARD_APPS" (join "," $values.applications | default "none")
  "CALLBOARD_REDIS_URL_FILE" "/run/secrets/callboard/redis/url"
  "CALLBOARD_OPS_PORT" "9000"
  "CALLBOARD_OPS_HOST" (include "callboard.listen" $root | fromYaml).it
-}}
{{- /* What the chart has nothing to say about is left to the image's ENV. */ -}}
{{- range $name, $value := index . 1 -}}
{{- if not (and (kindIs "string" $value) (not $value)) -}}{{- $_ := set $env $name $value -}}{{- end -}}
{{- end -}}
{{- range $layer := slice . 2 -}}
{{- range $name, $value := $layer -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset $env $name -}}{{- else -}}{{- $_ := set $env $name $value -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name := keys $env | sortAlpha -}}
{{- $value := get $env $name }}
- name: {{ $name }}
  {{- if kindIs "map" $value }}
  {{- toYaml $value | nindent 2 }}
  {{- else if kindIs "float64" $value }}
  value: {{ printf (ternary "%.0f" "%v" (eq $value (floor $value))) $value | quote }}
  {{- else }}
  value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "callboard.listen" -}}
{{- if eq .Values.listen.address "podIP" -}}
it: {valueFrom: {fieldRef: {fieldPath: status.podIP}}}
{{- else -}}
it: {{ .Values.listen.address | quote }}
{{- end -}}
{{- end -}}

{{- /* A pod's host name is cut off at 63 characters, its name is not. */ -}}
{{- define "callboard.podName" -}}
valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end -}}

{{- define "callboard.volumes" -}}
{{- $values := .Values -}}
- name: tmp
  emptyDir: {}
- name: redis
  secret:
    secretName: {{ include "callboard.redisSecret" . | quote }}
    items: [{key: {{ ternary "url" $values.redis.urlKey $values.valkey.enabled | quote }}, path: url}]
{{- if and (not $values.valkey.enabled) $values.redis.tls.existingSecret }}
- name: redis-tls
  secret:
    secretName: {{ $values.redis.tls.existingSecret | quote }}
{{- end }}
{{- if $values.database.existingSecret }}
- name: database
  secret:
    secretName: {{ $values.database.existingSecret | quote }}
    items: [{key: {{ $values.database.urlKey | quote }}, path: url}]
{{- end }}
{{- end -}}

{{- define "callboard.mounts" -}}
{{- $values := .Values -}}
- {name: tmp, mountPath: /tmp}
- {name: redis, mountPath: /run/secrets/callboard/redis, readOnly: true}
{{- if and (not $values.valkey.enabled) $values.redis.tls.existingSecret }}
- {name: redis-tls, mountPath: /run/secrets/callboard/redis-tls, readOnly: true}
{{- end }}
{{- if $values.database.existingSecret }}
- {name: database, mountPath: /run/secrets/callboard/database, readOnly: true}
{{- end }}
{{- end -}}

{{- define "callboard.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "callboard.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* (list OWN DEFAULTS): the three probes; OWN's fields over the defaults', null for none. A handler of OWN's
replaces the default's. */ -}}
{{- define "callboard.probes" -}}
{{- $own := index . 0 | default dict -}}
{{- range $name, $probe := index . 1 -}}
{{- if not (and (hasKey $own $name) (kindIs "invalid" (get $own $name))) -}}
{{- $wanted := get $own $name | default dict -}}
{{- if or (hasKey $wanted "exec") (hasKey $wanted "tcpSocket") (hasKey $wanted "httpGet") (hasKey $wanted "grpc") -}}
{{- $probe = omit $probe "httpGet" "tcpSocket" -}}
{{- end }}
{{ $name }}Probe:
  {{- range $field, $value := $wanted -}}{{- $_ := set $probe $field $value -}}{{- end }}
  {{- toYaml $probe | nindent 2 }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Liveness does not ask Redis, and allows a minute: a restart in haste costs running tasks. */ -}}
{{- define "callboard.opsProbes" -}}
startup: {httpGet: {path: /livez, port: ops}, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 60}
readiness: {httpGet: {path: /readyz, port: ops}, periodSeconds: 5, timeoutSeconds: 2, failureThreshold: 2}
liveness: {httpGet: {path: /livez, port: ops}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
{{- end -}}

{{- /* (list $ OWN PRIORITY COMPONENT [SET]): where a pod may run. */ -}}
{{- define "callboard.placement" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
{{- $labels := include "callboard.selectorLabels" (concat (list $root) (slice . 3)) | fromYaml -}}
{{- with $own.priorityClassName | default (ternary (printf "%s-%s" (include "callboard.clusterName" $root) (index . 2)) "" $root.Values.priorityClasses.create) }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $own.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range $own.topologySpreadConstraints }}
  {{- $constraint := deepCopy . }}
  {{- if not (hasKey $constraint "labelSelector") }}
  {{- $_ := set $constraint "labelSelector" (dict "matchLabels" $labels) }}
  {{- end }}
  - {{- toYaml $constraint | nindent 4 }}
  {{- end }}
{{- else if and $own.spread (ne $own.spread "none") }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ ternary "DoNotSchedule" "ScheduleAnyway" (and (eq $own.spread "required") (eq $key "kubernetes.io/hostname")) }}
    labelSelector:
      matchLabels:
        {{- toYaml $labels | nindent 8 }}
    # Pods of the rollout before do not count.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{- define "callboard.pullSecrets" -}}
{{- with concat (.Values.global.imagePullSecrets | default list) (.Values.image.pullSecrets | default list) | uniq }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}
