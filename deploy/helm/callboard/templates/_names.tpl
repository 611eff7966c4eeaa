{{- /* Names, labels and images. */ -}}

{{- define "callboard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 35 | trimSuffix "-" -}}
{{- end -}}

{{- /* 35: the longest that is made from it, NAME-worker-SET, stays within the 63 of a label, SET being 20 at most. */ -}}
{{- define "callboard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 35 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "callboard.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 35 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 35 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The prefix of cluster-wide objects: another namespace may have a release of the same name. */ -}}
{{- define "callboard.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "callboard.fullname" .) -}}
{{- end -}}

{{- /* (list $ COMPONENT [SET]): what selectors select by. */ -}}
{{- define "callboard.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "callboard.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- if gt (len .) 2 }}
callboard.dev/worker-set: {{ index . 2 }}
{{- end }}
{{- end -}}

{{- /* (list $ COMPONENT [SET]): labels of an object; COMPONENT may be empty. */ -}}
{{- define "callboard.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- if index . 1 }}
{{ include "callboard.selectorLabels" . }}
{{- else }}
app.kubernetes.io/name: {{ include "callboard.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: callboard
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* (list $ NAME COMPONENT [SET|"" [ANNOTATIONS [LABELS]]]): the whole of an object's metadata. */ -}}
{{- define "callboard.metadata" -}}
{{- $root := index . 0 -}}
{{- $set := "" -}}{{- if gt (len .) 3 -}}{{- $set = index . 3 -}}{{- end -}}
{{- $annotations := dict -}}
{{- range $key, $value := $root.Values.commonAnnotations -}}{{- $_ := set $annotations $key $value -}}{{- end -}}
{{- if gt (len .) 4 -}}
{{- range $key, $value := index . 4 -}}{{- $_ := set $annotations $key $value -}}{{- end -}}
{{- end -}}
name: {{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- if $set }}
  {{- include "callboard.labels" (list $root (index . 2) $set) | nindent 2 }}
  {{- else }}
  {{- include "callboard.labels" (list $root (index . 2)) | nindent 2 }}
  {{- end }}
  {{- if gt (len .) 5 }}
  {{- with index . 5 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* (list $ IMAGE): registry/repository@digest or :tag. */ -}}
{{- define "callboard.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $root.Values.global.imageRegistry | default $image.registry | default $root.Values.image.registry -}}
{{- if $registry -}}{{- trimSuffix "/" $registry -}}/{{- end -}}
{{- $image.repository -}}
{{- if $image.digest -}}
@{{ $image.digest }}
{{- else -}}
:{{ $image.tag | default $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "callboard.serviceAccountName" -}}
{{- $root := index . 0 -}}
{{- $account := index . 1 -}}
{{- if $account.create -}}
{{- $account.name | default (printf "%s-%s" (include "callboard.fullname" $root) (index . 2)) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "callboard.authSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-auth" (include "callboard.fullname" .)) -}}
{{- end -}}

{{- define "callboard.valkeySecret" -}}
{{- .Values.valkey.existingSecret | default (printf "%s-valkey" (include "callboard.fullname" .)) -}}
{{- end -}}

{{- define "callboard.redisSecret" -}}
{{- if .Values.valkey.enabled -}}
{{- include "callboard.valkeySecret" . -}}
{{- else -}}
{{- .Values.redis.existingSecret -}}
{{- end -}}
{{- end -}}
