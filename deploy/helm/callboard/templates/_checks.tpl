{{- /* (list $ API KIND VALUE CURE): fails unless the cluster has the kind. */ -}}
{{- define "callboard.needs" -}}
{{- $root := index . 0 -}}
{{- $kind := printf "%s/%s" (index . 1) (index . 2) -}}
{{- if not ($root.Capabilities.APIVersions.Has $kind) -}}
{{- fail (printf "%s needs %s, which this cluster does not have. %s. (With `helm template` say --api-versions %s.)" (index . 3) $kind (index . 4) $kind) -}}
{{- end -}}
{{- end -}}

{{- define "callboard.check" -}}
{{- range $path, $successor := .Files.Get "files/removed.json" | fromJson -}}
{{- $node := $.Values -}}
{{- range splitList "." $path -}}
{{- $node = ternary (get ($node | default dict) .) nil (kindIs "map" $node) -}}
{{- end -}}
{{- if not (or (kindIs "invalid" $node) (and (kindIs "string" $node) (not $node))) -}}
{{- fail (printf "%s is not a value of this chart; use %s" $path $successor) -}}
{{- end -}}
{{- end -}}
{{- $fullname := include "callboard.fullname" . -}}
{{- if not (regexMatch "^[a-z]" $fullname) -}}
{{- fail (printf "the release's name makes the Services' names start with %q, and they must start with a letter: use another, or fullnameOverride, for example cb-%s" (substr 0 1 $fullname) (trunc 30 $fullname | trimSuffix "-")) -}}
{{- end -}}
{{- range $path, $labels := dict "commonLabels" .Values.commonLabels "api.podLabels" .Values.api.podLabels "scheduler.podLabels" .Values.scheduler.podLabels "valkey.podLabels" .Values.valkey.podLabels "metrics.podMonitor.labels" .Values.metrics.podMonitor.labels "metrics.prometheusRule.labels" .Values.metrics.prometheusRule.labels "metrics.dashboards.labels" .Values.metrics.dashboards.labels -}}
{{- include "callboard.checkLabels" (list $path $labels) -}}
{{- end -}}
{{- range $path, $resources := dict "api" .Values.api.resources "scheduler" .Values.scheduler.resources "valkey" .Values.valkey.resources -}}
{{- include "callboard.checkResources" (list $path $resources) -}}
{{- end -}}
{{- $accounts := dict -}}
{{- range $path, $account := dict "api.serviceAccount" .Values.api.serviceAccount "scheduler.serviceAccount" .Values.scheduler.serviceAccount "workerServiceAccount" .Values.workerServiceAccount -}}
{{- if and $account.create $account.name -}}
{{- if hasKey $accounts $account.name -}}
{{- fail (printf "%s and %s would both make the ServiceAccount %s: give one of them another name, or create: false" (get $accounts $account.name) $path $account.name) -}}
{{- end -}}
{{- $_ := set $accounts $account.name $path -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.valkey.enabled) (not .Values.redis.existingSecret) -}}
{{- fail "redis.existingSecret: valkey.enabled is false, so a Secret must hold the URL of your Redis: kubectl create secret generic my-redis --from-literal=url=rediss://:PASSWORD@HOST:6379/0" -}}
{{- end -}}
{{- if and .Values.valkey.enabled .Values.redis.existingSecret -}}
{{- fail (printf "redis.existingSecret (%s) names a Redis of yours, but valkey.enabled is true. Set valkey.enabled: false, or take redis.existingSecret away" .Values.redis.existingSecret) -}}
{{- end -}}
{{- if and .Values.auth.existingSecret .Values.auth.adminKey -}}
{{- fail "auth.existingSecret and auth.adminKey are both set; set one" -}}
{{- end -}}
{{- range $name := list "conversations" "marketing" -}}
{{- if and (has $name $.Values.applications) (not $.Values.database.existingSecret) -}}
{{- fail (printf "database.existingSecret: the application %s keeps its data in PostgreSQL, so a Secret must hold its URL: kubectl create secret generic my-database --from-literal=url=postgresql://USER:PASSWORD@HOST:5432/DATABASE" $name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.valkey.enabled -}}
{{- with ((.Values.valkey.resources | default dict).limits | default dict).memory -}}
{{- $most := mulf (include "callboard.mebibytes" (list "valkey.resources.limits.memory" .) | float64) 0.6 -}}
{{- if gt (include "callboard.mebibytes" (list "valkey.maxmemory" $.Values.valkey.maxmemory) | float64) $most -}}
{{- fail (printf "valkey.maxmemory: %v is above 60%% of resources.limits.memory (%v), and a rewrite of the append-only file can double what is in use. At most %.0fMi" $.Values.valkey.maxmemory . (floor $most)) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.settings.durability "synced") (ne .Values.valkey.appendfsync "always") -}}
{{- fail "settings.durability: synced says that Redis runs with `appendfsync always`; set valkey.appendfsync: always" -}}
{{- end -}}
{{- if eq .Values.settings.durability "replicated" -}}
{{- fail "settings.durability: replicated waits for a replica, and the chart's Valkey has none. Use fast or synced, or a Redis of your own" -}}
{{- end -}}
{{- end -}}
{{- if .Values.api.autoscaling.enabled -}}
{{- if not (kindIs "invalid" .Values.api.replicas) -}}
{{- fail "api.replicas: with api.autoscaling.enabled the HPA sets it; use api.autoscaling.minReplicas and maxReplicas" -}}
{{- end -}}
{{- with .Values.api.autoscaling -}}
{{- if gt (float64 .minReplicas) (float64 .maxReplicas) -}}
{{- fail (printf "api.autoscaling: minReplicas %v is above maxReplicas %v" .minReplicas .maxReplicas) -}}
{{- end -}}
{{- if and (kindIs "invalid" .targetCPU) (kindIs "invalid" .targetRequestsPerSecond) -}}
{{- fail "api.autoscaling: the HPA has no metric; set targetCPU or targetRequestsPerSecond" -}}
{{- end -}}
{{- end -}}
{{- $resources := .Values.api.resources | default dict -}}
{{- if not (or (kindIs "invalid" .Values.api.autoscaling.targetCPU) ($resources.requests | default dict).cpu ($resources.limits | default dict).cpu) -}}
{{- fail "api.autoscaling.targetCPU: percent of what? Set api.resources.requests.cpu, or targetCPU: null" -}}
{{- end -}}
{{- end -}}
{{- if lt (int .Values.api.terminationGracePeriodSeconds) (add (int .Values.api.preStopSleepSeconds) 15 | int) -}}
{{- fail (printf "api.terminationGracePeriodSeconds: %v is less than preStopSleepSeconds + 15 = %v: open requests would be cut" .Values.api.terminationGracePeriodSeconds (add (int .Values.api.preStopSleepSeconds) 15)) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts: an Ingress needs at least one, for example [{host: callboard.example.com}]" -}}
{{- end -}}
{{- if .Values.httpRoute.enabled -}}
{{- include "callboard.needs" (list . "gateway.networking.k8s.io/v1" "HTTPRoute" "httpRoute.enabled" "Install the Gateway API and a controller for it first, or use ingress.enabled") -}}
{{- if not .Values.httpRoute.parentRefs -}}
{{- fail "httpRoute.parentRefs: a route needs a Gateway, for example [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- end -}}
{{- if .Values.metrics.podMonitor.enabled -}}
{{- include "callboard.needs" (list . "monitoring.coreos.com/v1" "PodMonitor" "metrics.podMonitor.enabled" "Install the Prometheus Operator first, or turn this off") -}}
{{- end -}}
{{- if .Values.metrics.prometheusRule.enabled -}}
{{- include "callboard.needs" (list . "monitoring.coreos.com/v1" "PrometheusRule" "metrics.prometheusRule.enabled" "Install the Prometheus Operator first, or turn this off") -}}
{{- end -}}
{{- end -}}
