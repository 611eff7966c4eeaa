{{- /* Names, labels and images. */ -}}

{{- define "callboard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 35 | trimAll "-" -}}
{{- end -}}

{{- /* A release's name may have dots, a Service's may not.
35: the longest that is made from it, NAME-worker-SET, stays within the 63 of a label, SET being 20 at most. */ -}}
{{- define "callboard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 35 | trimAll "-" -}}
{{- else -}}
{{- $name := include "callboard.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 35 | trimAll "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" | trunc 35 | trimAll "-" -}}
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
{{- /* Quoted: a release or a set may be called `on` or `007`. */ -}}
app.kubernetes.io/name: {{ include "callboard.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- if gt (len .) 2 }}
callboard.dev/worker-set: {{ index . 2 | quote }}
{{- end }}
{{- end -}}

{{- /* (list MAP…): the maps over each other as YAML, which has no key twice; a null takes a key away. */ -}}
{{- define "callboard.over" -}}
{{- $all := dict -}}
{{- range . -}}
{{- range $key, $value := . -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset $all $key -}}{{- else -}}{{- $_ := set $all $key $value -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- with $all -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{- /* (list PATH LABELS): fails for labels that the chart's selectors, or Helm, go by. */ -}}
{{- define "callboard.checkLabels" -}}
{{- $path := index . 0 -}}
{{- range $key := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/managed-by" "callboard.dev/worker-set" -}}
{{- if hasKey (index $ 1 | default dict) $key -}}
{{- fail (printf "%s: %s is the chart's own, which selectors go by. Take another label" $path $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* (list $ COMPONENT SET LABELS): labels of an object; COMPONENT, SET and LABELS may be empty. */ -}}
{{- define "callboard.labels" -}}
{{- $root := index . 0 -}}
{{- $chart := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/part-of" "callboard" -}}
{{- $selector := dict "app.kubernetes.io/name" (include "callboard.name" $root) "app.kubernetes.io/instance" $root.Release.Name -}}
{{- with index . 1 -}}{{- $_ := set $selector "app.kubernetes.io/component" . -}}{{- end -}}
{{- with index . 2 -}}{{- $_ := set $selector "callboard.dev/worker-set" . -}}{{- end -}}
{{- $_ := set $selector "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- include "callboard.over" (list $chart $root.Values.commonLabels (index . 3) $selector) -}}
{{- end -}}

{{- /* (list $ NAME COMPONENT [SET|"" [ANNOTATIONS [LABELS]]]): the whole of an object's metadata. */ -}}
{{- define "callboard.metadata" -}}
{{- $root := index . 0 -}}
{{- $set := "" -}}{{- if gt (len .) 3 -}}{{- $set = index . 3 -}}{{- end -}}
{{- $annotations := dict -}}{{- if gt (len .) 4 -}}{{- $annotations = index . 4 -}}{{- end -}}
{{- $labels := dict -}}{{- if gt (len .) 5 -}}{{- $labels = index . 5 -}}{{- end -}}
name: {{ index . 1 | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "callboard.labels" (list $root (index . 2) $set $labels) | nindent 2 }}
{{- with include "callboard.over" (list $root.Values.commonAnnotations $annotations) }}
annotations:
  {{- nindent 2 . }}
{{- end }}
{{- end -}}

{{- /* (list $ NAME COMPONENT): the metadata of an object that has no namespace. */ -}}
{{- define "callboard.clusterMetadata" -}}
{{- omit (include "callboard.metadata" . | fromYaml) "namespace" | toYaml -}}
{{- end -}}

{{- /* (list $ LABELS COMPONENT [SET]): the labels of a pod. */ -}}
{{- define "callboard.podLabels" -}}
{{- $root := index . 0 -}}
{{- $selector := include "callboard.selectorLabels" (concat (list $root) (slice . 2)) | fromYaml -}}
{{- include "callboard.over" (list $root.Values.commonLabels (index . 1) $selector) -}}
{{- end -}}

{{- /* (list CONTAINER CHECKSUMS ANNOTATIONS): the annotations of a pod. */ -}}
{{- define "callboard.podAnnotations" -}}
{{- $container := dict "kubectl.kubernetes.io/default-container" (index . 0) -}}
{{- include "callboard.over" (list $container (index . 1 | fromYaml) (index . 2)) -}}
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
